from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatbot_core import slots
from chatbot_core.errors import Invalid

shard_counts = st.integers(1, 100)
slot_sets = st.frozensets(st.integers(0, slots.SLOT_COUNT - 1))


def _imbalance(owners: tuple[int, ...], shards: int) -> int:
    counts = Counter(owners)
    held = [counts[shard] for shard in range(shards)]
    return max(held) - min(held)


@given(shard_counts)
def test_a_new_map_is_balanced_and_complete(shards: int) -> None:
    owners = slots.initial_owners(shards)
    assert (len(owners), set(owners), _imbalance(owners, shards) <= 1) == (
        slots.SLOT_COUNT,
        set(range(shards)),
        True,
    )


@given(shard_counts, shard_counts)
def test_a_change_of_shards_moves_the_fewest_slots(before: int, after: int) -> None:
    old = slots.initial_owners(before)
    new = slots.rebalance(old, after)
    moved = sum(a != b for a, b in zip(old, new, strict=True))
    held = sorted((Counter(old)[shard] for shard in range(after)), reverse=True)
    quota = sorted(
        (slots.SLOT_COUNT // after + (i < slots.SLOT_COUNT % after) for i in range(after)),
        reverse=True,
    )
    fewest = slots.SLOT_COUNT - sum(min(h, q) for h, q in zip(held, quota, strict=True))
    assert (_imbalance(new, after) <= 1, moved) == (True, fewest)


@given(slot_sets)
def test_a_bitmap_comes_back_as_the_same_slots(held: frozenset[int]) -> None:
    assert slots.from_bitmap(slots.to_bitmap(held)) == held


@given(st.text(min_size=1))
def test_a_document_has_one_slot_for_ever(doc_id: str) -> None:
    assert 0 <= slots.slot_of(doc_id) == slots.slot_of(doc_id) < slots.SLOT_COUNT


def test_a_document_keeps_the_slot_it_has_today() -> None:
    assert [slots.slot_of(name) for name in ("a", "document", "0190c0de")] == [559, 834, 228]


def test_documents_spread_over_all_slots() -> None:
    counts = Counter(slots.slot_of(f"doc-{i}") for i in range(100_000))
    assert (len(counts), max(counts.values()) < 160) == (slots.SLOT_COUNT, True)


@given(st.binary().filter(lambda raw: len(raw) != slots.BITMAP_BYTES))
def test_a_bitmap_of_another_length_is_refused(raw: bytes) -> None:
    with pytest.raises(Invalid, match="bitmap of 128 bytes"):
        slots.from_bitmap(raw)


@pytest.mark.parametrize("shards", [0, -1, 1025])
def test_a_shard_count_outside_the_bounds_is_refused(shards: int) -> None:
    with pytest.raises(Invalid, match="1 to 1024"):
        slots.initial_owners(shards)
