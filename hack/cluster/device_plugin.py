"""A kubelet device plugin that advertises GPUs which are only counted, never touched.

The scheduler then does real accounting: a Pod that asks for more than is free stays Pending.
Run as `python -m cluster.device_plugin API_DIRECTORY RESOURCE COUNT CLUSTER_DIRECTORY`; the last
only names the cluster that it belongs to.
"""

import importlib
import logging
import signal
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc

from cluster.config import DEVICE_PLUGINS

KUBELET_SOCKET = DEVICE_PLUGINS / "kubelet.sock"
log = logging.getLogger("device-plugin")


class Plugin:
    """The DevicePlugin service: lists the devices and puts the chosen ones into the pod's env."""

    def __init__(self, api: Any, resource: str, count: int) -> None:
        self._api = api
        self._devices = [f"{resource.partition('/')[2]}-{index}" for index in range(count)]
        self._ended = threading.Event()

    def GetDevicePluginOptions(self, _request: Any, _context: Any) -> Any:  # noqa: N802
        """No option is needed."""
        return self._api.DevicePluginOptions()

    def ListAndWatch(self, _request: Any, context: Any) -> Iterator[Any]:  # noqa: N802
        """Send the devices, all healthy, and hold the stream open."""
        gone = threading.Event()
        context.add_callback(gone.set)
        devices = [self._api.Device(ID=one, health="Healthy") for one in self._devices]
        yield self._api.ListAndWatchResponse(devices=devices)
        while not gone.wait(1) and not self._ended.is_set():
            continue

    def Allocate(self, request: Any, _context: Any) -> Any:  # noqa: N802
        """Name the devices in NVIDIA_VISIBLE_DEVICES, as NVIDIA's own plugin does."""
        answers = []
        for container in request.container_requests:
            names = ",".join(container.devices_ids)
            envs = {"NVIDIA_VISIBLE_DEVICES": names}
            answers.append(self._api.ContainerAllocateResponse(envs=envs))
        return self._api.AllocateResponse(container_responses=answers)

    def close(self) -> None:
        """Let open streams end."""
        self._ended.set()


def serve(api: Any, stubs: Any, resource: str, count: int, ended: threading.Event) -> None:
    """Serve and register, again whenever the kubelet made its socket anew."""
    while not ended.is_set():
        identity = _identity(KUBELET_SOCKET)
        if identity is None:
            ended.wait(0.2)
            continue
        plugin, server = _start(api, stubs, resource, count)
        try:
            _register(api, stubs, resource)
            log.info("registered %d x %s", count, resource)
            while _identity(KUBELET_SOCKET) == identity and not ended.wait(0.2):
                continue
        except grpc.RpcError as error:
            log.warning("the kubelet refused the registration: %s", error)
            ended.wait(1)
        finally:
            plugin.close()
            server.stop(grace=None).wait()


def _start(api: Any, stubs: Any, resource: str, count: int) -> tuple[Plugin, grpc.Server]:
    # The generated base class answers what we do not offer with UNIMPLEMENTED.
    plugin = type("Servicer", (Plugin, stubs.DevicePluginServicer), {})(api, resource, count)
    socket = DEVICE_PLUGINS / _endpoint(resource)
    socket.unlink(missing_ok=True)
    server = grpc.server(ThreadPoolExecutor(max_workers=8))
    stubs.add_DevicePluginServicer_to_server(plugin, server)
    server.add_insecure_port(f"unix://{socket}")
    server.start()
    return plugin, server


def _register(api: Any, stubs: Any, resource: str) -> None:
    with grpc.insecure_channel(f"unix://{KUBELET_SOCKET}") as channel:
        request = api.RegisterRequest(
            version="v1beta1", endpoint=_endpoint(resource), resource_name=resource
        )
        stubs.RegistrationStub(channel).Register(request, timeout=5)


def _endpoint(resource: str) -> str:
    return f"glowplug-{resource.replace('/', '-')}.sock"


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    return status.st_ino, status.st_ctime_ns


def main() -> None:
    directory, resource, count, _cluster = sys.argv[1:]
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    sys.path.insert(0, directory)
    api = importlib.import_module("deviceplugin_pb2")
    stubs = importlib.import_module("deviceplugin_pb2_grpc")
    serve(api, stubs, resource, int(count), _told_to_end())


def _told_to_end() -> threading.Event:
    """Return what SIGTERM and SIGINT set, from a thread: a handler may interrupt its lock's holder.

    Call it before any other thread starts: they inherit the mask.
    """
    signals = {signal.SIGTERM, signal.SIGINT}
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    ended = threading.Event()

    def wait() -> None:
        signal.sigwait(signals)
        ended.set()

    threading.Thread(target=wait, name="signals", daemon=True).start()
    return ended


if __name__ == "__main__":
    main()
