"""Dashboard, alert rules, runbooks and docs/metrics.md against what the programs really expose."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterable, Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import CollectorRegistry
from prometheus_client.core import Metric

from glowplug.control.gauges import Figures
from glowplug.control.metrics import Metrics as OperatorMetrics
from glowplug.control.objects import Held
from glowplug.gateway.metrics import Metrics as GatewayMetrics
from glowplug.gateway.traffic import ModelTraffic
from glowplug.observe import ColdStart

REPOSITORY = Path(__file__).parents[3]
DASHBOARD: dict[str, Any] = json.loads((REPOSITORY / "dashboards/glowplug.json").read_text())
RULES = REPOSITORY / "dashboards/alerts.yaml"
TESTS = REPOSITORY / "dashboards/alerts_test.yaml"
RUNBOOKS = REPOSITORY / "docs/runbooks"

Described = dict[str, tuple[str, frozenset[str]]]


def operator() -> CollectorRegistry:
    """A registry in which every metric has a sample."""
    ready = {"conditions": [{"type": "Ready", "status": "True", "reason": "Serving"}]}
    held: Held[Any] = Held("GPUPool", "", "p", "u", "1", 1, False, None, (), ready)
    metrics = OperatorMetrics(lambda: [held])
    metrics.watch(lambda: 0, lambda: 0, lambda: True)
    metrics.show("ns/m", Figures(1, {"hot": 1}, {"held": 0.0}, 1.0), promise=1.0)
    metrics.started_cold(ColdStart("ns/m", "u", 1.0, {"load": 1.0}, {}, "cold", 0.0), None)
    metrics.wrote("create", "pods", "ok")
    metrics.decisions.labels("ns", "m", "up").inc()
    metrics.failures.labels("GPUPool").inc()
    metrics.reconcile.labels("GPUPool").observe(1)
    return metrics.registry


def gateway() -> CollectorRegistry:
    metrics = GatewayMetrics(lambda: [ModelTraffic("ns/m", lambda: 0.0, lambda *_: None)])
    metrics.answered("ns/m", 200)
    metrics.retried("ns/m", "died")
    metrics.held("ns/m", 1.0)
    metrics.first_token("ns/m", 1.0)
    return metrics.registry


def described(registry: CollectorRegistry) -> Described:
    """Type and labels of each metric of ours."""
    found: Described = {}
    for family in registry.collect():
        if family.name.startswith("glowplug_"):
            labels = {label for s in family.samples for label in s.labels} - {"le"}
            name = f"{family.name}_total" if family.type == "counter" else family.name
            found[name] = (family.type, frozenset(labels))
    return found


def series(families: Iterable[Metric]) -> Iterator[tuple[str, frozenset[str]]]:
    for family in families:
        for sample in family.samples:
            yield sample.name, frozenset(sample.labels)


EXPOSED: dict[str, frozenset[str]] = {
    name: labels for make in (operator, gateway) for name, labels in series(make().collect())
}
TARGET_LABELS = frozenset({"job", "instance", "pod"})


def panels() -> list[dict[str, Any]]:
    return [p for panel in DASHBOARD["panels"] for p in (panel, *panel.get("panels", ()))]


def variables() -> list[str]:
    return [v["definition"] for v in DASHBOARD["templating"]["list"] if v["type"] == "query"]


def alerts() -> list[dict[str, Any]]:
    return [r for g in yaml.safe_load(RULES.read_text())["groups"] for r in g["rules"]]


def queries() -> list[str]:
    return [t["expr"] for p in panels() for t in p.get("targets", ())] + [
        alert["expr"] for alert in alerts()
    ]


def names_in(query: str) -> set[str]:
    """Every name in a PromQL expression that is a metric's: no function, label or keyword."""
    bare = re.sub(r'"[^"]*"', "", query)
    bare = re.sub(r"\{[^}]*\}|\[[^]]*\]", "", bare)
    bare = re.sub(r"\b(by|without|on|ignoring|group_left|group_right)\s*\([^)]*\)", "", bare)
    words = re.findall(r"[a-zA-Z_:][\w:]*(?!\w*\s*\()", bare)
    calls = set(re.findall(r"([a-zA-Z_]\w*)\s*\(", bare))
    return set(words) - calls - {"and", "or", "unless", "bool", "sum", "max", "min", "count", "e9"}


def labels_in(query: str) -> set[tuple[str, str]]:
    """(metric, label) of every selector."""
    return {
        (metric, label)
        for metric, selector in re.findall(r"(\w+)\{([^}]*)\}", query)
        for label in re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", re.sub(r'"[^"]*"', '""', selector))
    }


def test_names_are_found_in_promql() -> None:
    query = 'sum by (a) (rate(x_total{b="c_d"}[5m])) / on (e) group_left (f) max(y) > 0.1'
    assert names_in(query) == {"x_total", "y"}
    assert labels_in(query) == {("x_total", "b")}


@pytest.mark.parametrize("query", [*queries(), *variables()])
def test_queries_name_metrics_and_labels_that_exist(query: str) -> None:
    text = re.sub(r"^label_values\((.*), (\w+)\)$", r"\1", query)
    names = names_in(text)
    assert names
    assert names <= EXPOSED.keys()
    for metric, label in labels_in(text):
        assert label in EXPOSED[metric]
    grouped = re.findall(r"\bby\s*\(([^)]*)\)", text)
    known = frozenset().union(*(EXPOSED[name] for name in names)) | TARGET_LABELS
    for labels in grouped:
        assert set(re.findall(r"\w+", labels)) <= known


def test_metrics_md_is_what_is_exposed() -> None:
    text = (REPOSITORY / "docs/metrics.md").read_text()
    for title, registry in (("Operator", operator()), ("Gateway", gateway())):
        section = text.split(f"\n## {title}\n", 1)[1].split("\n## ", 1)[0]
        rows = re.findall(r"^\| `(\w+)` \| (\w+) \| ([\w, ]*?) ?\|", section, re.MULTILINE)
        told = {
            name: (kind, frozenset(labels.replace(",", " ").split())) for name, kind, labels in rows
        }
        assert told == described(registry)


@pytest.mark.parametrize("make", [operator, gateway])
def test_names_follow_the_conventions(make: Any) -> None:
    for name, (kind, _) in described(make()).items():
        assert name.endswith("_total") == (kind == "counter")
        assert kind != "histogram" or name.endswith("_seconds")
        assert not re.search(r"_(ms|millis|minutes|kb|mb|percent)\b", name)


def promtool(*words: str | Path) -> None:
    program = shutil.which("promtool")
    if program is None:
        pytest.skip("promtool is not installed; it is in Debian's package prometheus")
    done = subprocess.run([program, *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_promtool_accepts_the_rules() -> None:
    promtool("check", "rules", RULES)


def test_alerts_fire_when_they_should_and_not_otherwise() -> None:
    promtool("test", "rules", TESTS)


def test_every_alert_is_tested_both_ways() -> None:
    cases = yaml.safe_load(TESTS.read_text())["tests"]
    told = [(t["alertname"], bool(t["exp_alerts"])) for c in cases for t in c["alert_rule_test"]]
    assert set(told) == {(a["alert"], fires) for a in alerts() for fires in (True, False)}


def test_promtool_accepts_the_dashboards_queries(tmp_path: Path) -> None:
    rules = [
        {"record": f"panel:query:{number}", "expr": expr.replace("$__rate_interval", "5m")}
        for number, expr in enumerate(t["expr"] for p in panels() for t in p.get("targets", ()))
    ]
    path = tmp_path / "panels.yaml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": rules}]}))
    promtool("check", "rules", path)


def test_every_alert_has_a_runbook_and_every_runbook_an_alert() -> None:
    for alert in alerts():
        page = REPOSITORY / alert["annotations"]["runbook_url"]
        assert page.read_text().startswith(f"# {alert['alert']}\n")
        for section in ("## What it means", "## What to do"):
            assert section in page.read_text()
    named = {f"{alert['alert']}.md" for alert in alerts()}
    assert {page.name for page in RUNBOOKS.iterdir()} == named | {"README.md"}
    index = (RUNBOOKS / "README.md").read_text()
    assert all(f"]({name})" in index for name in named)


def test_severities_are_two() -> None:
    assert {alert["labels"]["severity"] for alert in alerts()} == {"critical", "warning"}


def test_panels_lie_side_by_side() -> None:
    assert len({panel["id"] for panel in panels()}) == len(panels())
    for panel in panels():
        box = panel["gridPos"]
        assert box["x"] >= 0
        assert box["x"] + box["w"] <= 24
    for one, other in combinations((panel["gridPos"] for panel in panels()), 2):
        beside = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
        above = one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
        assert beside or above


def test_every_panel_says_what_it_shows_from_the_chosen_prometheus() -> None:
    for panel in panels():
        if panel["type"] == "row":
            continue
        assert panel["description"].endswith(".")
        for part in (panel, *panel["targets"]):
            assert part["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
        references = [target["refId"] for target in panel["targets"]]
        assert len(set(references)) == len(references)
