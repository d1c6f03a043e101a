"""The page of the predicates speaks of those that the operator has."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
REFUSAL = re.compile(r'Refusal\(\s*"([a-z_]+)"')


def test_every_predicate_has_its_row() -> None:
    sources = (ROOT / "operator").rglob("*.py")
    used = {name for source in sources for name in REFUSAL.findall(source.read_text())}
    page = (ROOT / "docs" / "safety.md").read_text()
    rows = {line.split("|")[1] for line in page.splitlines() if line.startswith("| `")}
    named = {name for row in rows for name in re.findall(r"`([a-z_]+)`", row)}
    assert named == used
