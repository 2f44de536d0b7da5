"""Start, find and end the cluster's host processes; a recycled pid is never taken for ours."""

import hashlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from cluster.config import ClusterError


@dataclass(frozen=True, slots=True)
class Daemon:
    """A background process with a pidfile and a log in `directory`."""

    name: str
    argv: Sequence[str]
    directory: Path
    env: Mapping[str, str] | None = None
    inputs: Sequence[Path] = ()  # files whose change means a restart

    @property
    def pidfile(self) -> Path:
        """JSON with the pid, its start time and what it was started from."""
        return self.directory / "pids" / f"{self.name}.json"

    @property
    def log(self) -> Path:
        """Standard output and error together."""
        return self.directory / "logs" / f"{self.name}.log"

    def fingerprint(self) -> str:
        """A digest of the command line and of the files it reads."""
        digest = hashlib.sha256(json.dumps(list(self.argv)).encode())
        for path in self.inputs:
            digest.update(path.read_bytes())
        return digest.hexdigest()

    def running(self) -> bool:
        """Whether the recorded process lives."""
        return is_running(self.pidfile)

    def current(self) -> bool:
        """Whether it lives and was started from what is asked for now."""
        record = _read(self.pidfile)
        return record is not None and record.lives() and record.made_from == self.fingerprint()

    def start(self) -> None:
        """Start it unless it runs; a changed command line or input restarts it."""
        if self.current():
            return
        stop(self.pidfile)
        for folder in (self.pidfile.parent, self.log.parent):
            folder.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as log:
            child = subprocess.Popen(
                list(self.argv),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.directory,
                env=None if self.env is None else {**os.environ, **self.env},
                start_new_session=True,
            )
        child.returncode = 0  # it outlives us: no warning when this handle is collected
        record = _Record(child.pid, start_time(child.pid), _boot(), self.fingerprint())
        self.pidfile.write_text(json.dumps(asdict(record)))

    def tail(self, lines: int = 8) -> str:
        """The end of its log."""
        if not self.log.exists():
            return ""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])

    def wait(self, ready: Callable[[], bool], seconds: float) -> None:
        """Wait until `ready` is true; that it died or is late is an error with its log's end."""
        deadline = time.monotonic() + seconds
        while not ready():
            if not self.running():
                raise ClusterError(f"{self.name} ended at once; {self.log} ends:\n{self.tail()}")
            if time.monotonic() > deadline:
                late = f"{self.name} was not ready within {seconds:.0f} s"
                raise ClusterError(f"{late}; {self.log} ends:\n{self.tail()}")
            time.sleep(0.1)


def is_running(pidfile: Path) -> bool:
    """Whether the process of a pidfile lives: the same process, not one that got its pid."""
    record = _read(pidfile)
    return record is not None and record.lives()


def pid_of(pidfile: Path) -> int | None:
    """The pid that a pidfile records, whether it lives or not."""
    record = _read(pidfile)
    return None if record is None else record.pid


def write_config(path: Path, text: str) -> None:
    """Write a daemon's file only if it changes: some end themselves at any touch."""
    if not path.exists() or path.read_text() != text:
        path.write_text(text)


def stop(pidfile: Path, seconds: float = 20) -> None:
    """End the process of a pidfile, wait until it is gone, and remove the file."""
    record = _read(pidfile)
    if record is not None and record.lives():
        end(record.pid, seconds)
    pidfile.unlink(missing_ok=True)


def end(pid: int, seconds: float = 20) -> None:
    """SIGTERM, then SIGKILL after `seconds`; return when the process is gone."""
    started = start_time(pid)
    for number, patience in ((signal.SIGTERM, seconds), (signal.SIGKILL, 10.0)):
        if started is None or start_time(pid) != started:
            return
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            return
        deadline = time.monotonic() + patience
        while start_time(pid) == started and time.monotonic() < deadline:
            time.sleep(0.02)
    if start_time(pid) == started:
        raise ClusterError(f"process {pid} does not end, not even by SIGKILL: look at it with ps.")


def start_time(pid: int) -> int | None:
    """Clock ticks after boot at which a process started; None when it is gone or a zombie."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = stat.rpartition(")")[2].split()
    if fields[0] == "Z":
        _reap(pid)
        return None
    return int(fields[19])


def command_lines() -> Iterator[tuple[int, list[str]]]:
    """Every process's pid and command line."""
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            raw = (entry / "cmdline").read_bytes()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if raw:
            yield int(entry.name), raw.decode(errors="replace").rstrip("\0").split("\0")


def strays(root: Path) -> list[int]:
    """Processes started for a cluster in `root`, known by an argument that names it."""
    prefix = f"{root}/"
    mine = os.getpid()
    return [
        pid
        for pid, argv in command_lines()
        if pid != mine and _is_daemon(argv) and any(prefix in word for word in argv[1:])
    ]


DAEMONS = {
    "containerd",
    "containerd-shim-runc-v2",
    "dns",
    "etcd",
    "kube-apiserver",
    "kube-controller-manager",
    "kube-proxy",
    "kube-scheduler",
    "kubelet",
    "kwok",
    "prometheus",
    "weed",
}


def _is_daemon(argv: list[str]) -> bool:
    return Path(argv[0]).name in DAEMONS or "cluster.device_plugin" in argv


@dataclass(frozen=True, slots=True)
class _Record:
    """A pidfile: a pid alone would be anybody's after a while."""

    pid: int
    start: int | None  # None: it was gone before its start time could be read
    boot: str
    made_from: str

    def lives(self) -> bool:
        started = start_time(self.pid)
        return started is not None and started == self.start and self.boot == _boot()


def _read(pidfile: Path) -> _Record | None:
    try:
        return _Record(**json.loads(pidfile.read_text()))
    except (FileNotFoundError, ValueError, TypeError):
        return None


def _boot() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def _reap(pid: int) -> None:
    """Collect a dead child of ours, so that it does not stay a zombie in a long test run."""
    try:
        os.waitpid(pid, os.WNOHANG)
    except (ChildProcessError, OSError):
        return
