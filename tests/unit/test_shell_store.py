"""The store: who is woken, what a list takes away, and how our own writes shield a key."""

from __future__ import annotations

from chatbot_operator.store import Entry, OwnerKey, Store

OWNER = ("ns", "chat")
OTHER = ("ns", "other")
SCOPE = "ConfigMap@"


def entry(value: str, version: int, owner: OwnerKey = OWNER) -> Entry[str]:
    return Entry(value, owner, version)


def made() -> tuple[Store[str, str], list[OwnerKey]]:
    woken: list[OwnerKey] = []
    return Store(woken.append), woken


def test_a_store_is_complete_when_every_expected_scope_was_listed() -> None:
    store, _ = made()
    store.expect("a")
    store.expect("b")
    store.replace("a", {}, 1)
    assert not store.complete
    store.replace("b", {}, 1)
    assert store.complete


def test_only_a_changed_value_wakes_its_owner() -> None:
    store, woken = made()
    store.seen(SCOPE, "x", entry("one", 1))
    store.seen(SCOPE, "x", entry("one", 2))
    store.seen(SCOPE, "x", entry("two", 3))
    assert woken == [OWNER, OWNER]


def test_a_list_wakes_the_owners_of_what_vanished_and_spares_other_scopes() -> None:
    store, woken = made()
    store.seen(SCOPE, "x", entry("one", 1))
    store.seen("Service@", "s", entry("one", 1, OTHER))
    woken.clear()
    store.replace(SCOPE, {"y": entry("new", 4)}, 5)
    assert store.of_owner(OWNER) == {"y": "new"}
    assert store.of_owner(OTHER) == {"s": "one"}
    assert set(woken) == {OWNER}


def test_a_key_that_changes_its_owner_wakes_both() -> None:
    store, woken = made()
    store.seen(SCOPE, "x", entry("one", 1))
    woken.clear()
    store.seen(SCOPE, "x", entry("one", 2, OTHER))
    assert set(woken) == {OWNER, OTHER}
    assert store.of_owner(OWNER) == {}


def test_our_write_shields_the_key_until_the_watch_has_shown_it() -> None:
    store, woken = made()
    store.seen(SCOPE, "x", entry("old", 1))
    store.wrote(SCOPE, "x", entry("ours", 5))
    woken.clear()
    assert not store.settled(OWNER)
    store.seen(SCOPE, "x", entry("stale", 4))
    store.vanished("x", 3)
    store.replace(SCOPE, {}, 4)
    assert store.get("x") == "ours"
    store.seen(SCOPE, "x", entry("ours", 5))
    assert store.settled(OWNER)
    assert woken == []


def test_what_is_told_while_a_list_is_under_way_is_newer_than_the_list() -> None:
    store, _ = made()
    store.replace(SCOPE, {key: entry("old", 1) for key in ("edited", "deleted", "left")}, 1)
    store.listing(SCOPE)
    store.seen(SCOPE, "edited", entry("new", 6))
    store.seen(SCOPE, "created", entry("new", 7))
    store.vanished("deleted", 8)
    store.replace(SCOPE, {key: entry("old", 1) for key in ("edited", "deleted", "left")}, 5)
    assert store.of_owner(OWNER) == {"edited": "new", "created": "new", "left": "old"}


def test_a_server_whose_versions_begin_again_is_believed() -> None:
    store, _ = made()
    store.replace(SCOPE, {"x": entry("old", 100), "y": entry("old", 100)}, 100)
    store.listing(SCOPE)
    store.replace(SCOPE, {"x": entry("restored", 7)}, 9)
    assert store.of_owner(OWNER) == {"x": "restored"}


def test_after_versions_have_begun_again_what_was_deleted_before_may_come() -> None:
    store, _ = made()
    store.replace(SCOPE, {"x": entry("old", 100)}, 100)
    store.vanished("x", 101)
    store.replace(SCOPE, {}, 9)
    store.seen(SCOPE, "x", entry("restored", 10))
    assert store.of_owner(OWNER) == {"x": "restored"}


def test_a_watch_that_tells_the_past_once_more_changes_nothing() -> None:
    store, woken = made()
    store.seen(SCOPE, "edited", entry("old", 1))
    store.seen(SCOPE, "deleted", entry("old", 2))
    store.seen(SCOPE, "edited", entry("new", 3))
    store.vanished("deleted", 4)
    store.vanished("made again", 5)
    store.seen(SCOPE, "made again", entry("new", 6))
    woken.clear()
    store.seen(SCOPE, "edited", entry("old", 1))
    store.seen(SCOPE, "deleted", entry("old", 2))
    store.vanished("made again", 5)
    assert store.of_owner(OWNER) == {"edited": "new", "made again": "new"}
    assert woken == []


def test_a_list_that_is_newer_than_our_write_settles_it() -> None:
    store, woken = made()
    store.wrote(SCOPE, "x", entry("ours", 5))
    store.replace(SCOPE, {}, 6)
    assert store.get("x") is None
    assert woken == [OWNER]


def test_the_watch_may_be_faster_than_the_answer() -> None:
    store, _ = made()
    store.seen(SCOPE, "x", entry("newer", 7))
    store.wrote(SCOPE, "x", entry("ours", 5))
    assert store.get("x") == "newer"
    assert store.settled(OWNER)


def test_the_answer_to_a_write_does_not_raise_what_was_deleted_after_it() -> None:
    store, _ = made()
    store.seen(SCOPE, "x", entry("ours", 5))
    store.vanished("x", 6)
    store.wrote(SCOPE, "x", entry("ours", 5))
    assert store.get("x") is None
    store.wrote(SCOPE, "x", entry("made again", 7))
    assert store.get("x") == "made again"
