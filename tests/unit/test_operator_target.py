"""What a plan remembers from one pass to the next, and that it changes no result."""

from __future__ import annotations

from dataclasses import replace

from fakes.operator_world import MINIMAL, World, applied, without

from chatbot_operator.desired import target

MANY_SHARDS = {**MINIMAL, "retrieval": {"shards": 100}}


def _forget() -> None:
    for memo in (target.target, target._whole, target._is_owned):
        memo.cache_clear()


def test_a_pass_that_finds_nothing_changed_builds_and_parses_nothing() -> None:
    world = World(spec=MANY_SHARDS).ready()
    world.plan()
    built, judged = target._whole.cache_info(), target._is_owned.cache_info()
    world.plan()
    assert target._whole.cache_info() == built
    assert target._is_owned.cache_info().misses == judged.misses


def test_what_is_remembered_changes_no_plan() -> None:
    world = World(spec=MANY_SHARDS).ready()
    there = world.children["Service", "docs-api"]
    edited = without(there.managed, "f:metadata", "f:labels")
    for change in ({}, {"managed": edited}, {"managed": there.managed, "applied": "v1:former"}):
        world.change(*there.key, **change)
        world.plan()
        remembered = world.plan()
        _forget()
        assert world.plan() == remembered


def test_an_edit_that_is_taken_back_is_seen_both_times() -> None:
    world = World().ready()
    there = world.children["Service", "docs-api"]
    edited = without(there.managed, "f:metadata", "f:labels")
    for _ in range(2):
        world.change(*there.key, managed=edited)
        assert applied(world.plan()) == [("Service", "docs-api", "Healed")]
        world.change(*there.key, managed=there.managed)
        assert world.plan().steps == ()


def test_what_one_object_s_children_follow_from_touches_no_other() -> None:
    one, two = World().ready(), World(name="wiki", uid="another").ready()
    two.settings = replace(two.settings, image_pull_policy="Always")
    assert {name.split("-")[0] for _, name, _ in applied(two.plan())} == {"wiki"}
    assert one.plan().steps == ()
