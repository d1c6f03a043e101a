"""The page of the predicates speaks of those that the operator has."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
REFUSAL = re.compile(r'Refusal\(\s*"([a-z_]+)"')
#: Those that stand between a pass and a pod, a volume or another one's object.
GUARDS = {
    "cache_is_settled",
    "data_version_not_newer_than_image",
    "database_reachable_before_migration",
    "earlier_rank_rolled_out",
    "every_slot_stays_covered",
    "foreign_object_not_ours",
    "one_minor_version_at_a_time",
    "one_shard_at_a_time",
    "shard_still_owns_slots",
    "volume_never_shrinks",
}


def test_every_row_is_a_predicate_and_every_guard_has_its_row() -> None:
    sources = (ROOT / "operator").rglob("*.py")
    used = {name for source in sources for name in REFUSAL.findall(source.read_text())}
    page = (ROOT / "docs" / "safety.md").read_text()
    rows = {line.split("|")[1] for line in page.splitlines() if line.startswith("| `")}
    named = {name for row in rows for name in re.findall(r"`([a-z_]+)`", row)}
    assert named <= used
    assert named >= GUARDS
