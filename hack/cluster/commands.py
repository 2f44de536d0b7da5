"""Run outside programs: failures are sentences with the end of the output, long ones get a bar."""

import os
import subprocess
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from cluster.config import ClusterError

console = Console(highlight=False, stderr=True)


def run(
    argv: Sequence[str | Path],
    *,
    env: Mapping[str, str] | None = None,
    stdin: str | None = None,
    cwd: Path | None = None,
    timeout: float | None = 600,
) -> str:
    """Run a program to its end and return its standard output."""
    words = [str(word) for word in argv]
    try:
        done = subprocess.run(
            words,
            env=None if env is None else {**os.environ, **env},
            input=stdin,
            stdin=subprocess.DEVNULL if stdin is None else None,
            cwd=cwd,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
    except FileNotFoundError as error:
        raise ClusterError(f"{words[0]} is not installed.") from error
    except subprocess.TimeoutExpired as error:
        raise ClusterError(f"{' '.join(words)} took longer than {timeout} s.") from error
    if done.returncode:
        raise ClusterError(_failure(words, done.returncode, done.stdout + done.stderr))
    return done.stdout


def succeeds(argv: Sequence[str | Path]) -> bool:
    """Whether a program exists and ends well."""
    try:
        run(argv, timeout=60)
    except ClusterError:
        return False
    return True


def follow(
    argv: Sequence[str | Path],
    title: str,
    *,
    total: int | None = None,
    counts: Callable[[str], bool] = bool,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    log: Path | None = None,
) -> None:
    """Run a long program under a progress bar that advances with each line that `counts`."""
    words = [str(word) for word in argv]
    ending: deque[str] = deque(maxlen=30)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with (
        Progress(*columns, console=console) as progress,
        open(log or os.devnull, "w") as sink,
        subprocess.Popen(
            words,
            env=None if env is None else {**os.environ, **env},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            cwd=cwd,
        ) as child,
    ):
        task = progress.add_task(title, total=total)
        for line in child.stdout or ():
            sink.write(line)
            ending.append(line)
            if counts(line):
                progress.advance(task)
        code = child.wait()
        if code == 0:
            done = progress.tasks[0].completed
            progress.update(task, total=done, completed=done)
    if code:
        raise ClusterError(_failure(words, code, "".join(ending)))


def _failure(words: Sequence[str], code: int, output: str) -> str:
    return f"`{' '.join(words)}` ended with {code}:\n" + "\n".join(output.splitlines()[-20:])
