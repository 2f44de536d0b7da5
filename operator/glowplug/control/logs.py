"""Logs as JSON lines on stderr; a record about an object carries its key as `object`."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from pythonjsonlogger.json import JsonFormatter

_QUIET = ("kopf", "aiohttp.access", "urllib3")
_object: ContextVar[str] = ContextVar("object")


@contextmanager
def about(key: object) -> Iterator[None]:
    """Give every line that is logged inside, at whatever depth, the object's key."""
    token = _object.set(str(key))
    try:
        yield
    finally:
        _object.reset(token)


class Keyed(logging.Filter):
    """Adds the key of the object at hand to a record that names none itself."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Let every record pass."""
        key = _object.get("")
        if key and not hasattr(record, "object"):
            record.object = key
        return True


def configure(level: str) -> None:
    """Set up the root logger of this process."""
    handler = logging.StreamHandler(sys.stderr)
    handler.addFilter(Keyed())
    handler.setFormatter(
        JsonFormatter(
            "{asctime}{levelname}{name}{message}",
            style="{",
            rename_fields={"asctime": "time", "levelname": "level", "name": "logger"},
            datefmt="%Y-%m-%dT%H:%M:%S%z",
        )
    )
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    # It says that it cannot take over signals; that is meant.
    logging.getLogger("kopf._core.reactor.running").setLevel(logging.ERROR)
    for name in _QUIET:
        logging.getLogger(name).setLevel(logging.WARNING)
