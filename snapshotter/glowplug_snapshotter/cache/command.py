"""The options of `glowplug-snapshotter cache`; the daemon itself is imported only to run it."""

from __future__ import annotations

import argparse
import os
import re
from pathlib import Path

from glowplug_snapshotter.events import Emit, Event

_UNITS = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
_UNITS |= {f"{letter}i": 1024**power for power, letter in enumerate("KMGT", 1)}
_BYTES = re.compile(r"(\d+(?:\.\d+)?)(|k|[MGT]|[KMGT]i)")


def options(parser: argparse.ArgumentParser) -> None:
    """Add the daemon's options."""
    add = parser.add_argument
    add("--store", required=True, metavar="URL", help="the store that is cached")
    add("--endpoint", metavar="URL", help="S3-compatible store")
    add("--directory", required=True, type=Path, metavar="DIR", help="on this node's disk")
    add("--budget", required=True, type=_bytes, metavar="BYTES", help="such as 400Gi")
    add("--host", metavar="ADDRESS", help="to listen on (every address)")
    add("--port", type=int, default=9420, help="for Pods (9420)")
    add("--peer-port", type=int, default=9421, help="for peers, probes and metrics (9421)")
    add("--advertise", default=os.environ.get("POD_IP"), metavar="ADDRESS", help="own, for peers")
    add("--peers", default=(), type=_words, metavar="HOST:PORT,...", help="the other daemons")
    add("--peers-file", type=Path, metavar="FILE", help="their addresses, read again on change")
    add("--peers-service", type=_service, metavar="NAMESPACE/NAME", help="a headless Service")
    add("--key-file", type=Path, metavar="FILE", help="shared by all daemons; without it, no peers")
    add("--peer-bandwidth", type=_bytes, metavar="BYTES", help="per second, given to all peers")
    add("--peer-transfers", type=int, default=4, metavar="N", help="to peers at a time (4)")


def run(chosen: argparse.Namespace, emit: Emit) -> Event:
    """Run the daemon until it is told to end."""
    from glowplug_snapshotter.cache import daemon

    names = daemon.Settings.__dataclass_fields__
    given = {name: value for name, value in vars(chosen).items() if name in names}
    return daemon.run(daemon.Settings(**given), emit, os.environ)


def _bytes(text: str) -> int:
    found = _BYTES.fullmatch(text)
    if found is None or not float(found[1]):
        raise argparse.ArgumentTypeError(f"{text!r} is not an amount of bytes such as 400Gi")
    return int(float(found[1]) * _UNITS[found[2]])


def _words(text: str) -> tuple[str, ...]:
    return tuple(word for word in text.split(",") if word)


def _service(text: str) -> str:
    if not re.fullmatch(r"[a-z0-9-]+/[a-z0-9-]+", text):
        raise argparse.ArgumentTypeError(f"{text!r} is not NAMESPACE/NAME")
    return text
