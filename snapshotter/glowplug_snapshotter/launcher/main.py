"""The zipapp's commands: `run` is PID 1 of the engine's container, `drain` its preStop."""

from __future__ import annotations

import os
import sys

from .config import ConfigError, from_environment

USAGE = "usage: launcher.pyz run | drain"


def main(arguments: list[str] | None = None) -> int:
    """Run one command; return the exit status."""
    words = sys.argv[1:] if arguments is None else arguments
    if words not in (["run"], ["drain"]):
        print(USAGE, file=sys.stderr)
        return 2
    try:
        config = from_environment(dict(os.environ))
    except ConfigError as error:
        print(f"glowplug: {error}", file=sys.stderr)
        return 2
    if words == ["drain"]:
        from .drain import ask

        return ask(config.launcher_port, config.drain_timeout)
    from .supervisor import Supervisor

    return Supervisor(config, dict(os.environ)).run()
