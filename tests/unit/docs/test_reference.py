"""The reference is what the CRDs say; conditions and events in the code are in the docs."""

from __future__ import annotations

import re
from pathlib import Path

from reference.__main__ import TARGET, load, render

ROOT = Path(__file__).resolve().parents[3]
TYPE_AND_REASON = re.compile(r'Verdict\(\s*"(\w+)",\s*"\w+",\s*"(\w+)"')
REASON_OF_A_SNAPSHOT = re.compile(r'return verdict\("\w+", "(\w+)"')
REASON_OF_A_POOL = re.compile(r'_refused\(\s*"(\w+)"')
REASON_OF_A_TROUBLE = re.compile(r'Trouble\(\s*"(\w+)"')
REASON_OF_AN_EVENT = re.compile(
    r'(?:recorder\.(?:normal|warning)\(\s*[^"]*?,|News\(\w+,)\s*"(\w+)"'
)


def test_the_reference_is_generated_from_the_crds() -> None:
    assert TARGET.read_text() == render(load()), "run `make crds`"


def test_every_condition_reason_and_event_of_the_operator_is_documented() -> None:
    code = "\n".join(
        path.read_text() for path in sorted((ROOT / "operator" / "glowplug").rglob("*.py"))
    )
    words = {word for pair in TYPE_AND_REASON.findall(code) for word in pair}
    for pattern in (
        REASON_OF_A_SNAPSHOT,
        REASON_OF_A_POOL,
        REASON_OF_A_TROUBLE,
        REASON_OF_AN_EVENT,
    ):
        found = set(pattern.findall(code))
        assert found, pattern.pattern
        words |= found

    page = (ROOT / "docs" / "conditions.md").read_text()

    assert sorted(word for word in words if f"`{word}`" not in page) == []
