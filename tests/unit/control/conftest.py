"""What the tests of control share: a clock to turn."""

import pytest


class Clock:
    """Time that moves only when the test says so, in seconds."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()
