"""The command `glowplug-operator`: flags, the lease, signals, and an end within seconds."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import os
import signal
import sys
import uuid
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import aiohttp
from prometheus_client import disable_created_metrics

from glowplug.act.launcher import LauncherMissingError, load_launcher
from glowplug.act.weights import Store
from glowplug.control.logs import configure
from glowplug.control.model import CacheSettings, Settings
from glowplug.control.operator import Operator
from glowplug.control.server import serve
from glowplug.kube import Client, Json
from glowplug_snapshotter.cache.auth import Key

log = logging.getLogger(__name__)


def main() -> None:
    """Run until SIGTERM or SIGINT (exit code 0) or until something essential fails (1)."""
    args = _parser().parse_args()
    configure("info")
    disable_created_metrics()  # type: ignore[no-untyped-call]  # a series for each series
    try:
        launcher = load_launcher()
    except LauncherMissingError as error:
        sys.exit(str(error))
    code = asyncio.run(_run(args, launcher))
    logging.shutdown()
    # Not sys.exit: a thread that waits for a slow Prometheus must not delay the hand-over.
    os._exit(code)


def _parser() -> argparse.ArgumentParser:
    env = os.environ.get
    parser = argparse.ArgumentParser(
        prog="glowplug-operator",
        description="Scales models from zero: watches demand, creates and drains replicas.",
        epilog="Out of a cluster, KUBECONFIG names the API server. POD_NAME identifies this "
        "process in the Lease, which the Pod of POD_UID owns. GLOWPLUG_LAUNCHER_PYZ is the "
        "launcher's file.",
    )
    add = parser.add_argument
    add("--namespace", default=env("POD_NAMESPACE", "default"), help="own namespace, of the Lease")
    add("--prometheus-url", default=env("GLOWPLUG_PROMETHEUS_URL"), help="queue depth of engines")
    add("--store-url", default=env("GLOWPLUG_STORE_URL"), help="snapshots go to s3://bucket/prefix")
    add("--store-endpoint", default=env("GLOWPLUG_STORE_ENDPOINT"), help="of an S3-like store")
    add("--store-secret", default=env("GLOWPLUG_STORE_SECRET"), help="Secret of the store's keys")
    add("--cache-url", default=env("GLOWPLUG_CACHE_URL"), help="of the nodes' caches, for Pods")
    add(
        "--cache-service",
        default=env("GLOWPLUG_CACHE_SERVICE"),
        help="NAMESPACE/NAME of the caches' headless Service: they are told of Pods ahead",
    )
    add("--cache-key-file", type=Path, default=env("GLOWPLUG_CACHE_KEY_FILE"), help="their key")
    add(
        "--snapshotter-image",
        default=env("GLOWPLUG_SNAPSHOTTER_IMAGE", "docker.io/glowplug/snapshotter:dev"),
        help="takes snapshots, and restores beside engines that cannot",
    )
    add("--port", type=int, default=8080, help="metrics, health, /sd/engines (8080)")
    add("--loop", type=_seconds, default=2.0, help="seconds between looks at an active model (2)")
    return parser


def _seconds(text: str) -> float:
    value = float(text)
    if not 0.1 <= value <= 60:
        raise argparse.ArgumentTypeError(f"must be between 0.1 and 60 seconds; got {text}")
    return value


def _settings(args: argparse.Namespace) -> Settings:
    store = None
    if args.store_url:
        store = Store(
            args.store_url,
            args.store_endpoint or None,
            args.store_secret or None,
            args.cache_url or None,
        )
    caches = None
    if args.cache_service:
        namespace, _, service = args.cache_service.partition("/")
        caches = CacheSettings(namespace, service, Key.read(args.cache_key_file))
    return Settings(args.loop, args.snapshotter_image, store, caches)


def _own_pod() -> Json | None:
    """An ownerReference to the Pod that this process runs in, None outside of one."""
    name, uid = os.environ.get("POD_NAME"), os.environ.get("POD_UID")
    if not name or not uid:
        return None
    return {"apiVersion": "v1", "kind": "Pod", "name": name, "uid": uid}


async def _run(args: argparse.Namespace, launcher: bytes) -> int:
    stopped = _signals()
    client = await Client.connect(os.environ.get("KUBECONFIG"))
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        operator = Operator(
            client,
            session,
            _settings(args),
            namespace=args.namespace,
            identity=f"{os.environ.get('POD_NAME') or os.uname().nodename}-{uuid.uuid4().hex[:8]}",
            launcher=launcher,
            prometheus_url=args.prometheus_url or None,
            owner=_own_pod(),
        )
        runner = await serve(operator.app, args.port)
        try:
            return await _live(operator, stopped)
        finally:
            await runner.cleanup()
            await client.close()


async def _live(operator: Operator, stopped: asyncio.Event) -> int:
    """Warm up, lead, and let go: the lease first, so that the next one need not wait."""
    tasks = _start(operator.background())
    stopping = asyncio.create_task(stopped.wait(), name="signal")
    tasks.add(stopping)
    try:
        for step in (operator.warm, operator.lease.acquire):
            waiting = asyncio.create_task(step(), name=step.__name__)
            if await _first({waiting}, tasks):
                waiting.cancel()
                return _verdict(stopping)
            waiting.result()
        log.info("leading")
        tasks |= (leading := _start(operator.leading()))
        await _first(tasks, set())
        for task in leading:
            task.cancel()
        return _verdict(stopping)
    finally:
        await operator.lease.release()
        for task in tasks:
            task.cancel()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(1.0):
                await asyncio.gather(*tasks, return_exceptions=True)


async def _first(waited: set[asyncio.Task[Any]], fatal: set[asyncio.Task[Any]]) -> bool:
    """Wait for one of `waited`; true if one of `fatal` ended before."""
    done, _ = await asyncio.wait(waited | fatal, return_when=asyncio.FIRST_COMPLETED)
    for task in done & fatal or done:
        error = None if task.cancelled() else task.exception()
        if error is not None:
            log.error("%s ended: %s", task.get_name(), error, exc_info=error)
    return not done & waited


def _verdict(stopping: asyncio.Task[Any]) -> int:
    return 0 if stopping.done() else 1


def _start(coroutines: dict[str, Coroutine[Any, Any, None]]) -> set[asyncio.Task[Any]]:
    return {asyncio.create_task(run, name=name) for name, run in coroutines.items()}


def _signals() -> asyncio.Event:
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    return stopped
