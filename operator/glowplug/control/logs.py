"""Logs as JSON lines on stderr; a record about an object carries its key as `object`."""

from __future__ import annotations

import logging
import sys

from pythonjsonlogger.json import JsonFormatter

_QUIET = ("kopf", "aiohttp.access", "urllib3")


def configure(level: str) -> None:
    """Set up the root logger of this process."""
    handler = logging.StreamHandler(sys.stderr)
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
