"""Which release runs: what the spec says, what is kept, and what refuses a step."""

from __future__ import annotations

import json
from dataclasses import replace

from fakes.operator_world import MINIMAL, SETTINGS, World

from chatbot_core import names
from chatbot_core.reasons import Reason
from chatbot_operator.model import Json, Refusal

_REPOSITORY = "registry.example/chatbot-runtime"
_DIGEST = f"sha256:{'0' * 64}"


def images(world: World) -> set[str]:
    """Return the images of every runtime container, as last applied."""
    found: set[str] = set()
    for key, thing in world.objects.items():
        if key not in world.children:
            continue
        pod = thing.get("spec", {}).get("template", {}).get("spec", {})
        found |= {
            one["image"]
            for one in pod.get("containers", [])
            if one["command"][0] == "chatbot-runtime"
        }
    return found


def kept(world: World) -> Json:
    held: Json = json.loads(world.children["ConfigMap", "docs-config"].choice)
    return held


def stating(world: World, **spec: object) -> World:
    return world.edited({**MINIMAL, **spec})


def refusals(world: World) -> list[Refusal]:
    return list(world.plan().refusals)


def rolled(world: World, passes: int = 12) -> World:
    """Let every step of a roll-out happen."""
    for _ in range(passes):
        world.execute()
        world.rolled_out().reporting()
    world.execute()
    return world


def test_a_new_object_gets_the_stated_version_of_the_operators_repository() -> None:
    world = World(spec={**MINIMAL, "version": "0.2"}).created()
    assert images(world) == {f"{_REPOSITORY}:0.2"}
    assert world.status["version"] == "0.2"


def test_the_operators_own_version_is_the_operators_own_image() -> None:
    settings = replace(SETTINGS, runtime_image="localhost/runtime:dev")
    world = World(spec={**MINIMAL, "version": "0.1.0"}, settings=settings).created()
    assert images(world) == {"localhost/runtime:dev"}


def test_a_stated_version_stays_when_it_is_no_longer_stated() -> None:
    world = rolled(stating(World().ready(), version="0.2"))
    stating(world)
    assert world.plan().steps == ()
    assert kept(world)["version"] == "0.2"


def test_a_digest_wins_and_its_removal_brings_the_chosen_image_back() -> None:
    world = rolled(stating(World().ready(), image={"digest": _DIGEST}))
    assert images(world) == {f"{_REPOSITORY}@{_DIGEST}"}
    assert world.condition("Ready")["status"] == "True"
    rolled(stating(world))
    assert images(world) == {f"{_REPOSITORY}:0.1.0"}


def test_a_step_over_a_minor_release_changes_nothing_not_even_the_image() -> None:
    world = World().ready()
    before = images(world)
    stating(world, version="0.3", image={"digest": _DIGEST}, answer={"mode": "Extract"}).execute()
    assert images(world) == before
    assert world.config().live.answer_mode == "Extract"
    assert refusals(world) == [
        Refusal(
            "one_minor_version_at_a_time",
            Reason.VERSION_STEP_TOO_LARGE,
            "spec.version 0.3 skips a minor release, 0.1.0 runs: "
            "state the releases between them one after the other",
        )
    ]
    assert world.condition("Stalled")["reason"] == "VersionStepTooLarge"
    assert world.status["version"] == "0.1.0"


def test_the_next_step_waits_for_the_tiers_of_the_last_one() -> None:
    world = stating(World().ready(), version="0.2")
    world.execute()
    stating(world, version="0.3")
    assert [one.name for one in refusals(world)][-1] == "one_minor_version_at_a_time"
    rolled(stating(world, version="0.2"))
    stating(world, version="0.3")
    assert "one_minor_version_at_a_time" not in [one.name for one in refusals(world)]


def test_a_former_release_runs_where_the_stored_data_allow_it() -> None:
    world = rolled(stating(World().ready(), version="0.2"))
    world.reporting(oldest_version="0.1.0")
    assert images(rolled(stating(world, version="0.1.0"))) == {f"{_REPOSITORY}:0.1.0"}


def test_a_release_older_than_the_data_is_refused() -> None:
    world = rolled(stating(World().ready(), version="0.2"))
    world.reporting(oldest_version="0.2")
    stating(world, version="0.1.0").execute()
    assert [one.name for one in refusals(world)] == ["data_version_not_newer_than_image"]
    assert world.condition("Stalled")["reason"] == "DataNewerThanVersion"
    assert images(world) == {f"{_REPOSITORY}:0.2"}


def test_nothing_goes_back_while_nobody_tells_what_is_stored() -> None:
    world = rolled(stating(World().ready(), version="0.2"))
    for silent in (
        world.reporting(oldest_version=""),
        world.reporting(oldest_version="0.1.0").later(120.0),
    ):
        stating(silent, version="0.1.0").execute()
        assert world.condition("Reconciling")["reason"] == "StatusUnknown"
        assert images(world) == {f"{_REPOSITORY}:0.2"}


def test_before_any_migration_there_are_no_data_to_be_newer() -> None:
    world = World(spec={**MINIMAL, "version": "0.2"}).created()
    stating(world, version="0.1.0").execute()
    assert world.status["version"] == "0.1.0"


def test_a_label_that_is_no_version_holds_no_step() -> None:
    world = World().ready()
    labels = {**world.children["Deployment", "docs-api"].labels, names.LABEL_VERSION: "mine"}
    world.change("Deployment", "docs-api", labels=labels)
    assert "one_minor_version_at_a_time" not in [
        one.name for one in refusals(stating(world, version="0.2"))
    ]


def test_a_spec_that_cannot_be_read_changes_no_release() -> None:
    world = World().ready()
    stating(world, version="newest").execute()
    assert world.condition("Stalled")["reason"] == "SpecInvalid"
    assert images(world) == {f"{_REPOSITORY}:0.1.0"}
