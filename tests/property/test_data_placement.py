"""Where new objects go: every store gets its share, and another list moves only what it must."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from chatbot_runtime.domain.placement import place

names = st.text("abcdefgh-0123", min_size=1, max_size=16)
stores = st.sets(names, min_size=1, max_size=8)
ids = st.text(min_size=1, max_size=40)


@given(stores, names, ids)
def test_a_new_store_takes_objects_and_moves_none_between_the_others(
    before: set[str], new: str, object_id: str
) -> None:
    assert place(object_id, before | {new}) in {place(object_id, before), new}


@given(stores, names, ids)
def test_a_store_that_leaves_moves_its_own_objects_alone(
    after: set[str], leaving: str, object_id: str
) -> None:
    was = place(object_id, after | {leaving})
    assert was in {leaving, place(object_id, after)}


@given(stores.flatmap(lambda it: st.tuples(st.just(sorted(it)), st.permutations(sorted(it)))), ids)
def test_the_order_of_the_list_means_nothing(
    orders: tuple[list[str], list[str]], object_id: str
) -> None:
    assert place(object_id, orders[0]) == place(object_id, orders[1])


def test_every_store_gets_an_equal_share() -> None:
    chosen = Counter(place(f"docs/{number}", ("main", "more", "most")) for number in range(9000))
    assert chosen == {"main": 3054, "more": 3001, "most": 2945}
