"""What all unit tests share: ports that nobody else takes, properties without a stop watch.

Hypothesis measures each example's time; on a machine with other work that says nothing.
"""

import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile("unit", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("unit")


@pytest.fixture(scope="session")
def free_port() -> Iterator[Callable[[], int]]:
    """Return a free port of loopback, kept for the process that the test is about to start.

    A socket bound to it that never listens keeps it: the kernel hands the port to nobody who asks
    for any, while a server that names it may bind it (both set SO_REUSEADDR, as servers do).
    """
    with ExitStack() as kept:

        def take() -> int:
            keeper = kept.enter_context(socket.socket())
            keeper.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            keeper.bind(("127.0.0.1", 0))
            return int(keeper.getsockname()[1])

        yield take
