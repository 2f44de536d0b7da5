"""How fast do a model's bytes get where they are wanted, and at what cost in CPU and memory?

A bf16 safetensors model (4 shards, 2.2 GB; --quick: 0.5 GB) lies in nginx and in SeaweedFS, both on
loopback, and on the local disk. Ours proves every chunk's crc32c; no peer proves anything.

- dropped: received (ours: proved) and thrown away. tmpfs, disk: kept in new files; disk: the clock
  stops when they are on it. Pre-touched: into files of the same size, every page of which was
  written before the clock started. The stores' files are in the page cache, warmed before each
  sample.
- local warm, local cold: from files that are in the page cache, or dropped from it, to tensors in
  memory, all kept. `glowplug` is a proved snapshot, `glowplug-plain` the same directory as it is.

Each sample is a process of its own. Its imports (a row) are outside the clock and outside "peak
beyond"; "peak RSS" is the whole process. Limits: the same bytes received into one reused buffer
(by one connection, and by one on each core), written from reused buffers, both, read into reused
buffers (also past the page cache) or into new memory, and memory touched for the first time. Ratios
are within a round; the last limit of a column is the one it is held to.

Needs nginx, 10 GB of disk, and 3 GB in /dev/shm. The peers get an environment of their own, made
once from benchmarks/peers.txt (6 GB: torch).
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

import restore_setup as setup
from report import Report, arguments
from restore_child import Job

OURS = ("glowplug", "glowplug-plain")
PEERS = (
    "obstore",
    "s5cmd",
    "boto3-tuned",
    "boto3-default",
    "awscrt",
    "runai-tuned",
    "runai-default",
    "safetensors",
    "fastsafetensors-nogds",
)
RECV = ("limit-recv", "limit-recv-each-core")
KEPT = ("limit-write", "limit-recv-write")
LOADED = (
    "limit-read",
    "limit-read-direct",
    "limit-read-kept",
)
TIMEOUT = 600  # s of one sample
QUICK = 270  # s after which a quick run begins no further sample

Result = dict[str, Any]  # what restore_child.py prints


@dataclass(frozen=True)
class Cell:
    """One column: where from (nginx, weed, local), where to, in what state, beside which limits."""

    name: str
    source: str
    limits: tuple[str, ...]
    to: str | None = None
    touched: bool = False
    cold: bool = False
    quick: bool = True


def cells(memory: str, disk: str) -> list[Cell]:
    return [
        Cell("nginx, dropped", "nginx", RECV),
        Cell("nginx, tmpfs", "nginx", KEPT, memory),
        Cell("nginx, tmpfs pre-touched", "nginx", KEPT, memory, touched=True),
        Cell("nginx, disk", "nginx", KEPT, disk),
        Cell("nginx, disk pre-touched", "nginx", KEPT, disk, touched=True, quick=False),
        Cell("SeaweedFS, dropped", "weed", RECV),
        Cell("SeaweedFS, tmpfs", "weed", KEPT, memory, quick=False),
        Cell("local warm", "local", LOADED),
        Cell("local cold", "local", LOADED, cold=True),
        Cell("memory first touch", "", ("limit-touch-4k", "limit-touch-huge")),
    ]


class Bench:
    """The model, where it is served, and what was measured."""

    def __init__(
        self, folder: Path, model: setup.Model, endpoints: dict[str, str], disk: str
    ) -> None:
        self.report = Report()
        self._model = model
        self._endpoints = endpoints
        self._disk = disk
        self._weed = folder / "weed"
        self._python, self._reason = setup.peers_python()

    def sample(self, cell: Cell, tool: str) -> None:
        """Measure one tool once; what it cannot do is its row."""
        if any((gap["case"], gap["tool"]) == (cell.name, tool) for gap in self.report.missing):
            return
        if tool in PEERS and self._python is None:
            self.report.lacks(cell.name, tool, self._reason)
            return
        with contextlib.ExitStack() as stack:
            to = None
            if cell.to is not None:
                to = Path(tempfile.mkdtemp(prefix="glowplug-restore-", dir=cell.to))
                stack.callback(shutil.rmtree, to)
            self._prepare(cell, tool, to)
            result = self._run(cell, tool, to)
            if "error" not in result and to is not None and not tool.startswith("limit-write"):
                headers = not tool.startswith("runai")
                ours = tool in OURS
                wrong = setup.differs(self._model, to, ours=ours, headers=headers)
                result = result if wrong is None else {"error": wrong}
        self._note(cell, tool, result)

    def _prepare(self, cell: Cell, tool: str, to: Path | None) -> None:
        if to is not None and cell.touched:
            endpoint = self._endpoints[cell.source]
            setup.touch_files(self._model, endpoint, to, ours=tool in OURS)
        if cell.cold:
            setup.drop(self._model.files)
        elif cell.source == "weed":
            setup.warm(list(self._weed.rglob("*.dat")))
        else:
            setup.warm(self._model.files)

    def _run(self, cell: Cell, tool: str, to: Path | None) -> Result:
        model = self._model
        job = Job(
            tool=tool,
            endpoint=self._endpoints.get(cell.source, ""),
            bucket=setup.BUCKET,
            keys=[f"blobs/{entry.blake3}" for entry in model.entries],
            sizes=[entry.size for entry in model.entries],
            files=[str(path) for path in model.files],
            digest=model.digest,
            to=None if to is None else str(to),
            touched=cell.touched,
            sync=cell.to == self._disk,
        )
        peer = tool in PEERS
        python = self._python if peer else sys.executable
        script = setup.HERE / ("restore_peers.py" if peer else "restore_ours.py")
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("AWS_", "RUNAI_"))}
        env = {**kept, **setup.KEYS, "AWS_EC2_METADATA_DISABLED": "true", "AWS_REGION": "us-east-1"}
        command = [str(python), str(script), json.dumps(asdict(job))]
        try:
            done = subprocess.run(
                command, env=env, capture_output=True, text=True, timeout=TIMEOUT, check=False
            )
        except subprocess.TimeoutExpired:
            return {"error": f"not done within {TIMEOUT} s"}
        last = done.stdout.strip().rpartition("\n")[2]
        if done.returncode or not last.startswith("{"):
            return {"error": f"ended with status {done.returncode}: {done.stderr.strip()[-200:]}"}
        result: Result = json.loads(last)
        return result

    def _note(self, cell: Cell, tool: str, result: Result) -> None:
        print(cell.name, tool, result, file=sys.stderr)
        if "error" in result:
            self.report.lacks(cell.name, tool, str(result["error"]))
            return
        size = self._model.size
        add = self.report.add
        add(cell.name, tool, "speed", "GB/s", size / result["seconds"] / 1e9)
        add(cell.name, tool, "CPU", "s/GB", result["cpu"] * 1e9 / size)
        add(cell.name, tool, "peak RSS", "MiB", result["peak"] / setup.MIB)
        add(cell.name, tool, "peak beyond imports", "MiB", result["beyond"] / setup.MIB)
        if not tool.startswith("limit"):
            add(cell.name, tool, "imports", "s", result["imports"])


def measure(bench: Bench, columns: list[Cell], rounds: int, until: float) -> None:
    """Take every tool's sample of every column in turn, `rounds` times, each from another start."""
    for number in range(rounds):
        for cell in columns:
            tools = tools_of(cell)
            first = number * 3 % len(tools)
            for tool in (*tools[first:], *tools[:first]):
                if time.monotonic() < until:
                    bench.sample(cell, tool)
                elif number == 0:
                    bench.report.lacks(cell.name, tool, "not reached in the quick run's time")


def tools_of(cell: Cell) -> tuple[str, ...]:
    return (*OURS, *PEERS, *cell.limits) if cell.source else cell.limits


def compare(report: Report, columns: list[Cell]) -> None:
    """Add ours by the best peer, by Run:ai's tuned and by the limit, from samples of one round."""
    speeds = {key[:2]: got for key, got in report.samples.items() if key[2] == "speed"}
    for case, limit in ((cell.name, cell.limits[-1]) for cell in columns):
        ours = speeds.get((case, OURS[0]))
        measured = [peer for peer in PEERS if (case, peer) in speeds]
        if ours is None:
            continue
        best = max(measured, key=lambda peer: median(speeds[case, peer]), default=None)
        for other in dict.fromkeys((best, "runai-tuned", limit)):
            for one, two in zip(ours, speeds.get((case, other or ""), []), strict=False):
                report.add(case, f"glowplug / {other}", "speed", "ratio", one / two)


def main() -> None:
    """Measure, print, and write."""
    options = arguments(__doc__)
    if shutil.which("nginx") is None:
        sys.exit("nginx is missing: install Debian's nginx.")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    os.environ.update(setup.KEYS)
    started = time.monotonic()
    with contextlib.ExitStack() as stack:
        disk = stack.enter_context(tempfile.TemporaryDirectory("", "glowplug-bench-", "/var/tmp"))
        folder = Path(disk)
        folder.chmod(0o755)
        model = setup.write_model(folder / "model", 4, (140 if options.quick else 560) * setup.MIB)
        served = {
            "nginx": stack.enter_context(setup.nginx(folder / "nginx", model)),
            "weed": stack.enter_context(setup.weed(folder / "weed", model)),
        }
        columns = [c for c in cells("/dev/shm", disk) if c.quick or not options.quick]
        bench = Bench(folder, model, served, disk)
        until = started + QUICK if options.quick else float("inf")
        measure(bench, columns, rounds=2 if options.quick else 5, until=until)
    compare(bench.report, columns)
    bench.report.show()
    if options.json:
        bench.report.write(options.json)


if __name__ == "__main__":
    main()
