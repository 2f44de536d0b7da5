"""The command `glowplug-gateway`."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import signal
import sys
from pathlib import Path

import aiohttp
from prometheus_client import disable_created_metrics

from glowplug.gateway.gateway import Gateway, Settings
from glowplug.gateway.logs import log_json
from glowplug.gateway.proxy import WireLimits
from glowplug.gateway.tls import Certificate, CertificateError, CertificateFiles
from glowplug.gateway.watch import ClusterWatch
from glowplug.kube import Client


def main() -> None:
    """Run until SIGTERM or SIGINT; a second one ends the grace."""
    args = _parser().parse_args()
    log_json(sys.stderr)
    disable_created_metrics()  # type: ignore[no-untyped-call]  # a series for each series
    try:
        settings = _settings(args)
    except CertificateError as error:
        sys.exit(str(error))
    asyncio.run(_run(settings, args.namespace))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="glowplug-gateway",
        description="OpenAI-compatible gateway that holds requests while a model starts.",
        epilog="Out of a cluster, KUBECONFIG names the API server. Also read: POD_NAME, "
        "GLOWPLUG_GATEWAY_GRACE (seconds for the last requests after SIGTERM, 600), "
        "GLOWPLUG_GATEWAY_MAX_BODY (bytes, 33554432).",
    )
    parser.add_argument("--http-port", type=int, default=8080, help="for clients (8080)")
    parser.add_argument("--admin-port", type=int, default=9090, help="metrics and demand (9090)")
    parser.add_argument("--tls-cert", type=Path, help="PEM chain: clients speak TLS (plain HTTP)")
    parser.add_argument("--tls-key", type=Path, help="its PEM key; both are read when they change")
    parser.add_argument("--namespace", help="serve only this namespace's models (all)")
    return parser


def _settings(args: argparse.Namespace) -> Settings:
    return Settings(
        name=os.environ.get("POD_NAME") or os.uname().nodename,
        http_port=args.http_port,
        admin_port=args.admin_port,
        grace=_number("GLOWPLUG_GATEWAY_GRACE", 600.0),
        limits=WireLimits(body_bytes=int(_number("GLOWPLUG_GATEWAY_MAX_BODY", 32 * 2**20))),
        certificate=_certificate(args),
    )


def _certificate(args: argparse.Namespace) -> Certificate | None:
    if args.tls_cert is None and args.tls_key is None:
        return None
    if args.tls_cert is None or args.tls_key is None:
        sys.exit("--tls-cert and --tls-key belong together; give both or neither")
    return Certificate(CertificateFiles(args.tls_cert, args.tls_key))


def _number(name: str, default: float) -> float:
    text = os.environ.get(name, "")
    try:
        value = float(text) if text else default
    except ValueError:
        value = -1.0
    if not 0 <= value < 1e12:
        sys.exit(f"{name}={text!r}: must be a number of at least 0; correct it or leave it out")
    return value


async def _run(settings: Settings, namespace: str | None) -> None:
    told = _signals()
    client = await Client.connect(os.environ.get("KUBECONFIG"))
    try:
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
            gateway = Gateway(settings, session)
            watch = ClusterWatch(client, gateway.fleet, namespace)
            gateway.synced = lambda: watch.synced
            await gateway.start()
            watching = asyncio.create_task(watch.run())
            try:
                await _serve(gateway, watch, watching, told)
            finally:
                watching.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await watching
    finally:
        await client.close()


async def _serve(
    gateway: Gateway,
    watch: ClusterWatch,
    watching: asyncio.Task[None],
    told: asyncio.Queue[int],
) -> None:
    stop = asyncio.create_task(told.get())
    synced = asyncio.create_task(watch.until_synced())
    await asyncio.wait({stop, synced, watching}, return_when=asyncio.FIRST_COMPLETED)
    if synced.done():
        await gateway.accept()
        await asyncio.wait({stop, watching}, return_when=asyncio.FIRST_COMPLETED)
    synced.cancel()
    again = asyncio.create_task(told.get())
    stopping = asyncio.create_task(gateway.stop())
    await asyncio.wait({again, stopping}, return_when=asyncio.FIRST_COMPLETED)
    for task in (stop, again, stopping):
        task.cancel()
    if watching.done():
        watching.result()  # a watch never ends by itself: say why it did


def _signals() -> asyncio.Queue[int]:
    told: asyncio.Queue[int] = asyncio.Queue()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, told.put_nowait, number)
    return told
