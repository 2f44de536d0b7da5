"""The pages themselves: links lead somewhere, and what they tell to apply would be accepted."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
import typer
import yaml

from glowplug.api import meta, parse
from glowplug.cli.main import app

ROOT = Path(__file__).resolve().parents[3]
PAGES = sorted(
    {
        ROOT / "README.md",
        *(ROOT / "docs").rglob("*.md"),
        *ROOT.glob("examples/*/README.md"),
        *ROOT.glob("hack/*/README.md"),
    }
)
LINK = re.compile(r"!?\[[^\]]*\]\(([^()\s]+(?:\([^()]*\)[^()\s]*)?)\)")
FENCE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
MANIFEST = re.compile(r"^```yaml\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def goal(link: str, page: Path) -> Path:
    """The file that a link leads to, which may not exist."""
    path = link.partition("#")[0]
    return (page.parent / path).resolve() if path else page


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def links(text: str) -> Iterator[str]:
    """Every link of a page that stays in the repository; blocks of code have none."""
    for target in LINK.findall(FENCE.sub("", text)):
        if "://" not in target and not target.startswith("mailto:"):
            yield unquote(target)


def anchors(text: str) -> set[str]:
    """The anchors that forges make of headings: lower case, dashes for blanks, no punctuation."""
    headings = re.findall(r"^#+ +(.+)$", FENCE.sub("", text), re.MULTILINE)
    plain = [re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower() for heading in headings]
    return {re.sub(r"[^\w\- ]", "", heading).replace(" ", "-") for heading in plain}


def broken(text: str, page: Path) -> Iterator[str]:
    """The links of a page with this text that lead nowhere."""
    for link in links(text):
        target, anchor = goal(link, page), link.partition("#")[2]
        there = target.is_relative_to(ROOT) and target.exists()
        known = anchors(target.read_text()) if there and target.suffix == ".md" else set()
        if not there or (anchor and anchor not in known):
            yield link


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_lead_somewhere(page: Path) -> None:
    assert list(broken(page.read_text(), page)) == []


def test_broken_links_are_found() -> None:
    text = """[a](#remove) [b](#nothing) [c](cli.md#rights) [d](gone.md) [e](../../out.md)
[f](https://example.com/gone.md) ![g](concepts.svg) [h](concepts.svg#x)
```
[i](code.md)
```"""
    found = broken(text, ROOT / "docs" / "install.md")
    assert list(found) == ["#nothing", "gone.md", "../../out.md", "concepts.svg#x"]


def test_every_page_is_found_from_the_readme() -> None:
    reached, waiting = set[Path](), [ROOT / "README.md"]
    while waiting:
        page = waiting.pop()
        if page in reached or page.suffix != ".md" or not page.exists():
            continue
        reached.add(page)
        waiting += [goal(link, page) for link in links(page.read_text())]
    assert [name(page) for page in PAGES if page not in reached] == []


def manifests() -> list[tuple[str, dict[str, Any]]]:
    """Objects of our kinds in blocks of YAML, with the page's name."""
    found = []
    for page in PAGES:
        for block in MANIFEST.findall(page.read_text()):
            for body in yaml.safe_load_all(block):
                if isinstance(body, dict) and body.get("apiVersion") == meta.API_VERSION:
                    found.append((name(page), body))
    return found


@pytest.mark.parametrize(("page", "body"), manifests())
def test_manifests_would_be_accepted(page: str, body: dict[str, Any]) -> None:
    stored = {"uid": "u", "resourceVersion": "1", "namespace": "models"}
    parse(body["kind"], body | {"metadata": stored | body["metadata"]})


def test_there_are_manifests_in_the_pages() -> None:
    assert {"README.md", "docs/quickstart.md"} <= {page for page, _ in manifests()}


def settings() -> set[str]:
    """Every key of the chart that a page sets or names: `--set a.b=c,d=e`, `a.b=true`."""
    found = set()
    for page in PAGES:
        text = page.read_text()
        for words in re.findall(r"--set[ =](\S+)", text):
            found |= {word.partition("=")[0] for word in re.split(r",(?![^{]*})", words)}
        found |= set(re.findall(r"`([a-z][a-zA-Z]*(?:\.[a-zA-Z]+)+)=\S+`", text))
    return {key.strip("`'\"") for key in found}


def test_the_charts_values_that_pages_set_are_there() -> None:
    values = yaml.safe_load((ROOT / "charts" / "glowplug" / "values.yaml").read_text())

    def known(key: str) -> bool:
        part: Any = values
        for step in key.split("."):
            if not isinstance(part, dict) or step not in part:
                return False
            part = part[step]
        return True

    named = settings()
    assert {"image.repository", "store.secretName", "monitoring.prometheusRules"} <= named
    assert sorted(key for key in named if not known(key)) == []


def test_the_commands_that_pages_name_are_there() -> None:
    known = set(typer.main.get_command(app).commands)  # type: ignore[attr-defined]
    named = {
        command
        for page in PAGES
        for command in re.findall(
            r"(?:^|`|exec .*-- )glowplug (\w+)", page.read_text(), re.MULTILINE
        )
    }
    assert {"status", "timeline", "doctor"} <= named
    assert sorted(named - known) == []
