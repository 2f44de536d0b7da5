"""The command `glowplug-snapshotter`: take, restore, inspect, verify and cache model snapshots.

Every command speaks JSON lines on standard output; the last one is a result or an error.
"""

from __future__ import annotations

import argparse
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path

from glowplug_snapshotter.cache import command as cache
from glowplug_snapshotter.cancel import Cancelled, raise_on_signal
from glowplug_snapshotter.errors import SnapshotError
from glowplug_snapshotter.events import Emit, Event, error_event, write_termination_log
from glowplug_snapshotter.progress import terminal_emitter


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; return its exit status: 0 done, 1 failed with a sentence, 143 cancelled."""
    options = _parser().parse_args(argv)
    emit = terminal_emitter()
    try:
        if options.command != "cache":  # which ends in its own way
            raise_on_signal()
        last = _run(options, emit)
        status = 0
    except Cancelled:
        sentence = "The work was cancelled; no torn file was left."
        last, status = error_event(SnapshotError("Cancelled", sentence)), 143
    except SnapshotError as error:
        last, status = error_event(error), 1
    except Exception as error:
        traceback.print_exc()
        last = error_event(SnapshotError("Internal", f"This is a bug in Glowplug: {error!r}."))
        status = 1
    emit(last)
    if getattr(options, "termination_log", None):
        write_termination_log(options.termination_log, last)
    return status


def _run(options: argparse.Namespace, emit: Emit) -> Event:
    if options.command == "restore":
        from glowplug_snapshotter.restore import Request, restore

        request = Request(
            options.url, options.kind, options.digest, options.endpoint, options.to, options.cache
        )
        if options.socket is None:
            return restore(request, emit)
        from glowplug_snapshotter.serve import serve

        serve(request, options.socket, emit)
    if options.command == "take":
        from glowplug_snapshotter.take import take

        return take(options.source, options.source_endpoint, options.to, options.endpoint, emit)
    if options.command == "verify":
        from glowplug_snapshotter.verify import verify

        return verify(options.url, options.digest, options.endpoint, emit)
    if options.command == "diff":
        from glowplug_snapshotter.diff import diff

        return diff(options.url, options.a, options.b, options.endpoint)
    if options.command == "cache":
        return cache.run(options, emit)
    from glowplug_snapshotter.inspect import inspect

    return inspect(options.url, options.digest, options.endpoint)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="glowplug-snapshotter", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)

    take = commands.add_parser("take", help="snapshot a source into a store")
    take.add_argument("--source", required=True, metavar="URL")
    take.add_argument("--source-endpoint", metavar="URL", help="S3-compatible store of the source")
    take.add_argument("--to", required=True, metavar="URL", help="the store, s3://bucket/prefix")
    take.add_argument("--endpoint", metavar="URL", help="S3-compatible store to write to")
    take.add_argument("--termination-log", metavar="PATH")

    restore = commands.add_parser("restore", help="bring a snapshot or a source into a directory")
    _from(restore)
    restore.add_argument("--kind", required=True, choices=("snapshot", "source"))
    restore.add_argument("--to", required=True, type=Path, metavar="DIR")
    restore.add_argument("--cache", metavar="URL", help="the node's cache of the store, if it runs")
    restore.add_argument("--socket", type=Path, metavar="PATH", help="stay, and serve launchers")
    restore.add_argument("--termination-log", metavar="PATH")

    cache.options(commands.add_parser("cache", help="keep snapshots on this node, for its Pods"))

    _from(commands.add_parser("inspect", help="print what a snapshot holds"))
    _from(commands.add_parser("verify", help="read a stored snapshot back and prove it"))

    diff = commands.add_parser("diff", help="say how two snapshots differ")
    diff.add_argument("a", metavar="A", help="a digest of the store, or a manifest's URL")
    diff.add_argument("b", metavar="B")
    diff.add_argument("--from", dest="url", metavar="URL", help="the store")
    diff.add_argument("--endpoint", metavar="URL", help="S3-compatible store")
    return parser


def _from(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--from", dest="url", required=True, metavar="URL")
    parser.add_argument("--digest", metavar="blake3:HEX")
    parser.add_argument("--endpoint", metavar="URL", help="S3-compatible store")


if __name__ == "__main__":
    sys.exit(main())
