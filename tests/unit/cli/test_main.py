"""What the command does without a cluster."""

import io
from importlib.metadata import version

import pytest
from typer.testing import CliRunner

from glowplug.cli import render, terminal
from glowplug.cli.main import app
from glowplug.cli.view import Condition


def test_it_tells_its_version() -> None:
    told = CliRunner().invoke(app, ["--version"])
    assert (told.exit_code, told.stdout) == (0, f"glowplug {version('glowplug')}\n")


def test_without_a_command_it_lists_them() -> None:
    listed = CliRunner().invoke(app).stdout
    for command in ("status", "timeline", "explain", "top", "doctor", "release"):
        assert f" {command} " in listed


def test_a_pipe_gets_each_condition_on_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """The scheduler's sentence grows with the kinds of nodes that there are."""
    told = "0/40 nodes are available: " + ", ".join(f"{n} had taint {n}" for n in range(40)) + "."
    pipe = io.StringIO()
    monkeypatch.setattr("sys.stdout", pipe)
    condition = Condition("Ready", "False", "Unschedulable", told, "")
    terminal.console().print(render.conditions([condition], terminal.now()))
    [line] = pipe.getvalue().splitlines()
    assert told in line
