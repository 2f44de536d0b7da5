"""The operator's metrics as `glowplug top` reads them: from the operator's own registry."""

import pytest
from prometheus_client import generate_latest

from glowplug.cli import figures
from glowplug.cli.figures import Requests
from glowplug.control.gauges import Figures
from glowplug.control.metrics import Metrics


def scraped(*, leads: bool) -> str:
    metrics = Metrics(list)
    metrics.watch(lambda: 1, lambda: 0.25, lambda: leads)
    requests = {"running": 3.0, "held": 4.0}
    metrics.show("ns/smol", Figures(2, {"hot": 1}, requests, 2.5), promise=None)
    return generate_latest(metrics.registry).decode()


def test_requests_by_model_and_what_nobody_can_tell() -> None:
    read = figures.read(scraped(leads=True))
    assert read.leads
    assert read.queue_age == 0.25
    assert read.requests == {"ns/smol": Requests(running=3, waiting=None, held=4)}
    assert read.requests["ns/smol"].demand == 7


def test_a_standby_is_told_from_the_leader() -> None:
    assert not figures.read(scraped(leads=False)).leads


@pytest.mark.parametrize("text", ["", "up 1\n", "<html>", "glowplug_leader{x=\n"])
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        figures.read(text)


def test_no_figure_is_no_demand() -> None:
    assert Requests().demand is None
    assert Requests(held=0).demand == 0
