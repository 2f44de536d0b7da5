"""`glowplug top` as a reader and as a program sees it."""

import io

from rich.console import Console

from glowplug.cli import top, view
from glowplug.cli.figures import Figures, Heard, Requests
from glowplug.cli.top import Pool, Snapshot


def mdep(name: str, dollars: float | None, ready: int, namespace: str = "demo") -> view.Model:
    status = {
        "replicas": ready,
        "readyReplicas": ready,
        "tiers": {"hot": ready},
        "cost": {} if dollars is None else {"dollarsPerHour": dollars},
        "conditions": [{"type": "Ready", "status": "True", "reason": "Serving"}],
    }
    return view.model({"metadata": {"namespace": namespace, "name": name}, "status": status})


REQUESTS = {"demo/cheap": Requests(1, 0, 2), "demo/dear": Requests(5, None, 0)}
SEEN = Snapshot(
    models=[mdep("cheap", 1.2, 1), mdep("dear", 9.6, 4), mdep("unpriced", None, 0)],
    pools=[Pool("default", 5, 8, 10.8)],
    heard=Heard(Figures(leads=True, queue_age=0.5, requests=REQUESTS), "operator-1"),
)


def lines(seen: Snapshot, *, namespaces: bool = False) -> list[list[str]]:
    console = Console(file=io.StringIO(), width=160)
    console.print(top.draw(seen, namespaces=namespaces))
    return [line.split() for line in console.file.getvalue().splitlines()]


def test_the_dearest_model_comes_first_and_the_sums_last() -> None:
    drawn = lines(SEEN)
    assert " ".join(drawn[0]) == "pool default: 5 of 8 GPUs used, 10.80 $/h"
    assert " ".join(drawn[1]) == "operator operator-1: its queue is 0.50 s behind"
    assert drawn[4] == ["dear", "yes", "4/4", "4", "hot", "5", "5", "-", "0", "9.60"]
    assert drawn[5] == ["cheap", "yes", "1/1", "1", "hot", "3", "1", "0", "2", "1.20"]
    assert drawn[6] == ["unpriced", "yes", "0/0", "none", "-", "-", "-", "-", "-"]
    assert drawn[7] == ["all", "5/5", "8", "6", "0", "2", "10.80"]


def test_without_the_operator_objects_are_shown_and_the_trouble_is_said() -> None:
    deaf = Snapshot(SEEN.models, (), Heard(None, trouble="No operator leads."))
    drawn = lines(deaf, namespaces=True)
    assert " ".join(drawn[0]) == "! No operator leads."
    assert drawn[2][:2] == ["NAMESPACE", "NAME"]
    assert drawn[3] == ["demo", "dear", "yes", "4/4", "4", "hot", "-", "-", "-", "-", "9.60"]


def test_json_has_what_is_drawn_and_null_for_what_is_not_known() -> None:
    data = top.as_json(SEEN)
    dear = data["models"][1]
    assert (dear["demand"], dear["waiting"], dear["dollarsPerHour"]) == (5, None, 9.6)
    assert data["models"][2]["demand"] is None
    assert data["pools"] == [
        {"name": "default", "usedGpus": 5, "gpus": 8, "dollarsPerHour": 10.8},
    ]
    assert data["operator"] == {
        "source": "operator-1",
        "queueAgeSeconds": 0.5,
        "trouble": None,
    }
