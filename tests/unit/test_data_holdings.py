"""What a shard may answer for, and what it does when the log disagrees."""

from __future__ import annotations

import itertools

import pytest

from chatbot_runtime.domain.digest import document_hash
from chatbot_runtime.domain.holdings import Holdings, Moves
from chatbot_runtime.domain.model import Hit, SlotCounter
from chatbot_runtime.domain.scatter import Refusal, grouped, merged

DOC = document_hash(1, 1)


def counters(**moved: tuple[int, int]) -> list[SlotCounter]:
    """All 1,024 counters: zero, but `s3=(seq, digest)`."""
    return [SlotCounter(slot, *moved.get(f"s{slot}", (0, 0))) for slot in range(1024)]


def loaded(*slots: int) -> Holdings:
    holdings = Holdings(1)
    holdings.hold(slots)
    holdings.compare(counters(), 10.0)
    holdings.settle({}, {slot: SlotCounter(slot, 0, 0) for slot in slots}, 10.0)
    return holdings


def refused(holdings: Holdings, *slots: int, now_s: float = 10.1, **options: object) -> object:
    arguments = {"generation": 1, "least": {}} | options
    return holdings.refused(frozenset(slots), now_s=now_s, **arguments)  # type: ignore[arg-type] # a mixed dict


def test_nothing_is_answered_before_it_is_loaded_and_confirmed() -> None:
    holdings = Holdings(1)
    holdings.hold([3, 4])
    assert refused(holdings, 3, 4) == {Refusal.UNCONFIRMED: {3, 4}}
    assert holdings.compare(counters(), 10.0) == Moves({3: 0, 4: 0}, frozenset())
    assert refused(holdings, 3, 9) == {Refusal.LOADING: {3}, Refusal.NOT_HELD: {9}}
    assert not holdings.loaded_once
    holdings.settle({}, {3: SlotCounter(3, 0, 0), 4: SlotCounter(4, 0, 0)}, 10.0)
    assert refused(holdings, 3, 4) == {}
    assert holdings.loaded_once


def test_an_owner_whose_counters_are_two_seconds_old_is_silent() -> None:
    holdings = loaded(3)
    assert refused(holdings, 3, now_s=11.9) == {}
    assert refused(holdings, 3, now_s=12.0) == {Refusal.UNCONFIRMED: {3}}
    holdings.compare(counters()[:1000], 12.0)
    assert refused(holdings, 3, now_s=12.1) == {Refusal.UNCONFIRMED: {3}}
    holdings.compare(counters(), 12.0)
    assert refused(holdings, 3, now_s=12.1) == {}


def test_another_generation_is_refused_whole() -> None:
    assert refused(loaded(3), 3, 4, generation=2) == {Refusal.WRONG_GENERATION: {3, 4}}


def test_a_slot_that_moved_on_is_pulled_from_where_it_stands() -> None:
    holdings = loaded(3, 4)
    moved = counters(s3=(5, DOC))
    assert holdings.compare(moved, 10.0) == Moves({3: 0}, frozenset())
    assert holdings.behind({3: 5})
    assert refused(holdings, 3, 4, least={3: 5}) == {Refusal.BEHIND: {3}}
    assert refused(holdings, 3, 4) == {}
    assert holdings.settle({3: DOC}, {3: SlotCounter(3, 5, DOC)}, 10.0) == frozenset()
    assert refused(holdings, 3, 4, least={3: 5}) == {}
    assert holdings.compare(moved, 10.0) == Moves({}, frozenset())


@pytest.mark.parametrize("truth", [(4, DOC), (0, 0), (5, DOC ^ 1)])
def test_ahead_or_level_with_another_digest_is_loaded_anew(truth: tuple[int, int]) -> None:
    holdings = loaded(3, 4)
    holdings.settle({3: DOC}, {3: SlotCounter(3, 5, DOC)}, 10.0)
    assert holdings.compare(counters(s3=truth), 10.0) == Moves({3: 0}, frozenset({3}))
    assert refused(holdings, 3, 4) == {Refusal.LOADING: {3}}
    assert holdings.loaded_once


def test_a_slot_that_never_agrees_is_loaded_ever_more_rarely() -> None:
    holdings = loaded(3)
    wrong = {3: SlotCounter(3, 5, DOC)}
    holdings.compare(counters(s3=(5, DOC)), 10.0)
    assert holdings.settle({3: 0}, wrong, 10.0) == {3}
    loads = []
    for tick in range(190):
        now_s = 10.0 + tick / 2
        if 3 in holdings.compare(counters(s3=(5, DOC)), now_s).pull:
            loads.append(now_s)
            assert holdings.settle({3: 0}, wrong, now_s) == {3}
    waits = [round(after - before) for before, after in itertools.pairwise(loads)]
    assert waits == [1, 2, 4, 8, 16, 30, 30]


def test_slots_given_up_are_named_and_no_longer_held() -> None:
    holdings = loaded(3, 4)
    assert holdings.hold([4, 5]) == {3}
    assert refused(holdings, 3, 4, 5) == {Refusal.NOT_HELD: {3}, Refusal.LOADING: {5}}


def test_the_union_of_what_is_asked_is_what_was_wanted() -> None:
    owners = [slot % 3 for slot in range(1024)]
    asked = grouped(owners, range(100))
    assert sorted(asked) == [0, 1, 2]
    assert sorted(slot for slots in asked.values() for slot in slots) == list(range(100))


def test_parts_merge_by_score_then_number() -> None:
    parts = [[Hit(5, 1, 0, 0.5), Hit(2, 1, 1, 0.5)], [Hit(2, 1, 0, 0.5), Hit(9, 1, 0, 0.9)]]
    assert [(hit.doc_no, hit.ord) for hit in merged(parts, 3)] == [(9, 0), (2, 0), (2, 1)]
