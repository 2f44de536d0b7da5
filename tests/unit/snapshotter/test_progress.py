"""The bar: on a terminal only, and never among the lines that programs read."""

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from glowplug_snapshotter.progress import Bar, line

from .tools import contents, environment, write_store


@pytest.mark.parametrize(
    ("done", "total", "elapsed", "shown"),
    [
        (0, 1000, 0.0, "  0%  0 B of 1.0 kB  0 B/s"),
        (500_000_000, 2_000_000_000, 2.0, " 25%  500.0 MB of 2.0 GB  250.0 MB/s, 6 s left"),
        (2_000, 2_000, 1.0, "100%  2.0 kB of 2.0 kB  2.0 kB/s"),
        (0, 0, 0.0, "100%  0 B of 0 B  0 B/s"),
    ],
)
def test_the_line_tells_share_bytes_rate_and_what_is_left(
    done: int, total: int, elapsed: float, shown: str
) -> None:
    drawn = line(done, total, elapsed)
    assert drawn.endswith(shown)
    assert len(drawn.split(" ")[0]) == 30


def test_other_events_are_written_on_a_line_of_their_own() -> None:
    passed, screen, now = [], io.StringIO(), [0.0]
    bar = Bar(passed.append, screen, both=True, clock=lambda: now[0])
    bar({"event": "file", "name": "a"})
    assert screen.getvalue() == "", "nothing is drawn before there is progress"
    bar({"event": "progress", "done": 0, "total": 10})
    for done in range(1, 6):
        bar({"event": "progress", "done": done, "total": 10})
    assert screen.getvalue().count("\r") == 1, "drawn ten times a second at most"
    now[0] = 1.0
    bar({"event": "progress", "done": 6, "total": 10})
    bar({"event": "result"})
    assert screen.getvalue().endswith("\r\x1b[K"), "the bar is gone before the result is printed"
    assert [event["event"] for event in passed] == ["file", "result"]


def test_a_person_sees_a_bar_and_a_program_the_same_lines_as_ever(
    model: Path, tmp_path: Path
) -> None:
    digest = write_store(model, tmp_path / "store")
    ours, theirs = os.openpty()
    process = subprocess.Popen(
        [
            sys.executable, "-m", "glowplug_snapshotter", "restore", "--kind", "snapshot",
            "--from", f"file://{tmp_path}/store", "--digest", digest, "--to", tmp_path / "to",
        ],
        env=environment(), stdout=subprocess.PIPE, stderr=theirs,
    )  # fmt: skip
    os.close(theirs)
    events = [json.loads(line) for line in process.stdout]
    assert process.wait() == 0
    process.stdout.close()
    shown = os.read(ours, 1 << 16).decode()
    os.close(ours)
    assert contents(tmp_path / "to") == contents(model)
    assert {event["event"] for event in events} == {"progress", "file", "result"}
    assert "100%" in shown
    assert "{" not in shown
