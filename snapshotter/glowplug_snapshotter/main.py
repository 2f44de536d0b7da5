"""The command `glowplug-snapshotter`: what is done with model snapshots and the stores they are in.

Every command speaks JSON lines on standard output; the last one is a result or an error.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import time
import traceback
from collections.abc import Callable, Sequence
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
    commands: dict[str, Callable[[argparse.Namespace, Emit], Event]] = {
        "take": _take,
        "restore": _restore,
        "verify": _verify,
        "inspect": _inspect,
        "diff": _diff,
        "gc": _gc,
        "forget": _forget,
        "cache": cache.run,
    }
    return commands[options.command](options, emit)


def _take(options: argparse.Namespace, emit: Emit) -> Event:
    result: Event = {"event": "result", "digest": options.digest}
    key = _key(options)
    if options.source is not None:
        from glowplug_snapshotter.take import take

        ends = (options.source, options.source_endpoint, options.to, options.endpoint)
        result = take(*ends, emit)
    if key is None:
        return result
    from glowplug_snapshotter.compiled.capture import capture
    from glowplug_snapshotter.store import open_store

    store = open_store(options.to, options.endpoint, os.environ)
    captured = capture(store, result["digest"], options.compile_cache, key, emit)
    return {**result, "compileCache": captured}


def _restore(options: argparse.Namespace, emit: Emit) -> Event:
    from glowplug_snapshotter.restore import Request, restore

    ends = (options.url, options.kind, options.digest, options.endpoint, options.to, options.cache)
    compiled = None
    if options.compile_cache is not None:
        from glowplug_snapshotter.compiled.placing import Wanted

        compiled = Wanted(_parts(options.key), options.compile_cache)
    request = Request(*ends, compiled)
    if options.socket is not None:
        from glowplug_snapshotter.serve import serve

        serve(request, options.socket, emit)
    return restore(request, emit)


def _verify(options: argparse.Namespace, emit: Emit) -> Event:
    from glowplug_snapshotter.verify import verify

    return verify(options.url, options.digest, options.endpoint, emit)


def _inspect(options: argparse.Namespace, emit: Emit) -> Event:
    from glowplug_snapshotter.inspect import inspect

    return inspect(options.url, options.digest, options.endpoint)


def _diff(options: argparse.Namespace, emit: Emit) -> Event:
    from glowplug_snapshotter.diff import diff

    return diff(options.url, options.a, options.b, options.endpoint)


def _gc(options: argparse.Namespace, emit: Emit) -> Event:
    from glowplug_snapshotter.gc import Collection
    from glowplug_snapshotter.store import open_store

    store = open_store(options.url, options.endpoint, os.environ)
    collection = Collection(store.bucket, store.uploads, emit, options.older_than)
    return collection.run(delete=options.delete, now=time.time())


def _forget(options: argparse.Namespace, emit: Emit) -> Event:
    from glowplug_snapshotter.gc import forget
    from glowplug_snapshotter.store import open_store

    return forget(open_store(options.url, options.endpoint, os.environ).bucket, options.digest)


def _key(options: argparse.Namespace) -> dict[str, str] | None:
    """Return the checked key of the cache to capture, before any work is done."""
    if options.source is None and (options.digest is None or options.compile_cache is None):
        raise SnapshotError(
            "InvalidArguments", "Say --source, or --digest with the --compile-cache to add to it."
        )
    if options.compile_cache is None:
        return None
    from glowplug_snapshotter.compiled.format import checked_key

    return dict(checked_key(_parts(options.key)))


def _parts(words: Sequence[str]) -> dict[str, str]:
    return {name: value for name, _, value in (word.partition("=") for word in words)}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="glowplug-snapshotter", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)

    take = commands.add_parser("take", help="snapshot a source into a store")
    what = take.add_mutually_exclusive_group(required=True)
    what.add_argument("--source", metavar="URL")
    what.add_argument("--digest", metavar="blake3:HEX", help="a snapshot to add the cache to")
    take.add_argument("--source-endpoint", metavar="URL", help="S3-compatible store of the source")
    take.add_argument("--to", required=True, metavar="URL", help="the store, s3://bucket/prefix")
    take.add_argument("--endpoint", metavar="URL", help="S3-compatible store to write to")
    take.add_argument("--termination-log", metavar="PATH")
    _compile_cache(take)

    restore = commands.add_parser("restore", help="bring a snapshot or a source into a directory")
    _from(restore)
    restore.add_argument("--kind", required=True, choices=("snapshot", "source"))
    restore.add_argument("--to", required=True, type=Path, metavar="DIR")
    restore.add_argument("--cache", metavar="URL", help="the node's cache of the store, if it runs")
    restore.add_argument("--socket", type=Path, metavar="PATH", help="stay, and serve launchers")
    restore.add_argument("--termination-log", metavar="PATH")
    _compile_cache(restore)

    cache.options(commands.add_parser("cache", help="keep snapshots on this node, for its Pods"))

    _from(commands.add_parser("inspect", help="print what a snapshot holds"))
    _from(commands.add_parser("verify", help="read a stored snapshot back and prove it"))

    diff = commands.add_parser("diff", help="say how two snapshots differ")
    diff.add_argument("a", metavar="A", help="a digest of the store, or a manifest's URL")
    diff.add_argument("b", metavar="B")
    diff.add_argument("--from", dest="url", metavar="URL", help="the store")
    diff.add_argument("--endpoint", metavar="URL", help="S3-compatible store")

    gc = commands.add_parser("gc", help="show what nothing in a store names, or delete it")
    _store(gc)
    gc.add_argument("--delete", action="store_true", help="without it, nothing is deleted")
    gc.add_argument("--older-than", type=_age, default="24h", metavar="AGE", help="24h if left out")

    forget = commands.add_parser("forget", help="remove a snapshot; gc then frees its bytes")
    _store(forget)
    forget.add_argument("--digest", required=True, metavar="blake3:HEX")
    return parser


def _store(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--from", dest="url", required=True, metavar="URL", help="the store")
    parser.add_argument("--endpoint", metavar="URL", help="S3-compatible store")


def _compile_cache(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--compile-cache", type=Path, metavar="DIR", help="of the engine")
    parser.add_argument(
        "--key",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="engineImage, gpuArchitecture, driver and arguments: what the cache was compiled for",
    )


def _age(text: str) -> float:
    """Read an age like 90s, 30m, 24h or 7d; return seconds."""
    match = re.fullmatch(r"(\d{1,9})([smhd])", text)
    if match is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not an age: use 30m, 24h or 7d")
    return int(match[1]) * {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}[match[2]]


def _from(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--from", dest="url", required=True, metavar="URL")
    parser.add_argument("--digest", metavar="blake3:HEX")
    parser.add_argument("--endpoint", metavar="URL", help="S3-compatible store")


if __name__ == "__main__":
    sys.exit(main())
