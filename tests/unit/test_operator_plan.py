"""What one pass decides, step by step, in a world that does what the plan says."""

from __future__ import annotations

from dataclasses import replace

import pytest
from fakes.operator_world import MINIMAL, SETTINGS, UID, World, applied, without

from chatbot_core import names
from chatbot_core.reasons import Reason
from chatbot_core.runtime_config import digest
from chatbot_operator.desired.context import applied_hash
from chatbot_operator.model import (
    Apply,
    Child,
    Delete,
    Plan,
    Refusal,
    Scale,
    WantedSecret,
)

NOTHING = Plan()


def test_a_new_object_is_created_in_one_pass_in_order_of_rank() -> None:
    plan = World().read_secrets().plan()
    ranks = [step.rank for step in plan.steps]
    assert ranks == sorted(ranks)
    assert plan.refusals == ()
    assert [type(s).__name__ for s in plan.steps].count("CreateSecret") == 4
    assert all(step.uid is None for step in plan.steps if isinstance(step, Apply | Scale))
    assert all(reason == "Created" for _, _, reason in applied(plan))


def test_replicas_are_scaled_right_after_the_apply_that_creates_them() -> None:
    plan = World().read_secrets().plan()
    created = [
        (step.object["kind"], step.object["metadata"]["name"])
        for step in plan.steps
        if isinstance(step, Apply) and step.object["kind"] in {"Deployment", "StatefulSet"}
    ]
    scaled = [(step.kind, step.name) for step in plan.steps if isinstance(step, Scale)]
    assert scaled == created
    for before, after in zip(plan.steps, plan.steps[1:], strict=False):
        if isinstance(after, Scale):
            assert isinstance(before, Apply)
            assert before.object["metadata"]["name"] == after.name


def test_one_replica_is_scaled_too_because_nobody_owns_the_default() -> None:
    world = World().created()
    world.change("Deployment", "docs-ingest", scaler_owns_replicas=False, replicas=1)
    uid = world.children["Deployment", "docs-ingest"].uid
    assert world.plan().steps == (Scale(7, "Deployment", "docs-ingest", 1, "Scaled", uid),)


def test_a_second_pass_over_an_unchanged_world_writes_nothing() -> None:
    world = World().ready()
    assert world.plan() == Plan(
        wanted_secrets=(
            WantedSecret("docs-admin", frozenset({"username", "password"}), awaited=False),
            WantedSecret(
                "docs-database",
                frozenset({"dsn", "username", "password", "superuser-password"}),
                awaited=False,
            ),
            WantedSecret("docs-internal", frozenset({"token"}), awaited=False),
            WantedSecret(
                "docs-store-main", frozenset({"accessKeyId", "secretAccessKey"}), awaited=False
            ),
        )
    )


def test_the_same_world_gives_the_same_plan() -> None:
    assert repr(World().read_secrets().plan()) == repr(World().read_secrets().plan())


def test_nothing_is_done_before_every_kind_was_listed_once() -> None:
    assert World(complete=False).read_secrets().plan() == NOTHING


def test_nothing_is_done_to_an_object_that_is_being_deleted() -> None:
    assert World(deleting=True).read_secrets().plan() == NOTHING


def test_another_operator_changes_no_child_of_an_object_that_it_meets() -> None:
    world = World().ready()
    before = [(c.key, c.applied) for c in world.children.values()]
    world.settings = replace(
        SETTINGS,
        runtime_image="another:9",
        runtime_version="9",
        database_image="another:9",
        store_image="another:9",
        ollama_image="another:9",
    )
    assert world.plan().steps == ()
    assert [(c.key, c.applied) for c in world.children.values()] == before
    assert world.status["version"] == "0.1.0"


def test_a_broken_choice_in_the_config_map_is_healed() -> None:
    world = World().ready()
    world.change("ConfigMap", "docs-config", choice="{", applied="v1:edited")
    assert applied(world.plan()) == [("ConfigMap", "docs-config", "Changed")]


def test_a_choice_edited_by_hand_is_healed_and_never_followed() -> None:
    world = World().ready()
    config = world.children["ConfigMap", "docs-config"]
    evil = config.choice.replace("chatbot-runtime:0.1.0", "evil:1")
    world.change("ConfigMap", "docs-config", choice=evil, managed=without(config.managed, "f:data"))
    (step,) = world.plan().steps
    assert isinstance(step, Apply)
    assert (step.reason, step.object["data"][names.CHOICE_KEY]) == ("Healed", config.choice)


@pytest.mark.parametrize("lost", ["ConfigMap", "ServiceAccount"])
def test_another_operator_that_heals_a_deleted_copy_of_the_choice_rolls_nothing(lost: str) -> None:
    world = World().ready()
    world.settings = replace(SETTINGS, runtime_image="another:9", runtime_version="9")
    (key,) = [key for key in world.children if key[0] == lost]
    del world.children[key]
    assert applied(world.plan()) == [(*key, "Created")]


def test_a_live_edit_changes_the_config_map_and_nothing_else() -> None:
    world = World().ready().edited({**MINIMAL, "retrieval": {"minPassages": 5}})
    assert applied(world.plan()) == [("ConfigMap", "docs-config", "Changed")]
    assert len(world.plan().steps) == 1


def test_an_edit_of_one_tier_rolls_that_tier_only() -> None:
    edit = {"inference": {"model": "smollm2:135m", "managed": {"parallelRequests": 3}}}
    world = World().ready().edited(edit)
    assert applied(world.plan()) == [
        ("ConfigMap", "docs-config", "Changed"),
        ("Deployment", "docs-inference", "Changed"),
    ]


def test_a_foreign_label_edit_is_healed_with_the_known_uid() -> None:
    world = World().ready()
    there = world.children["Service", "docs-api"]
    label = f"f:{names.LABEL_COMPONENT}"
    edited = without(there.managed, "f:metadata", "f:labels", label)
    world.change("Service", "docs-api", managed=edited)
    step = world.plan().steps[0]
    assert step == Apply(
        8, world.objects["Service", "docs-api"], "Healed", uid=there.uid, heal=True
    )
    assert len(world.plan().steps) == 1


def test_an_owner_reference_removed_by_hand_comes_back() -> None:
    world = World().ready()
    there = world.children["Deployment", "docs-api"]
    managed = without(there.managed, "f:metadata", "f:ownerReferences")
    world.change("Deployment", "docs-api", owner_uid="", managed=managed)
    assert applied(world.plan()) == [("Deployment", "docs-api", "Healed")]


def test_a_deleted_child_is_created_again_with_its_replicas() -> None:
    world = World().ready()
    del world.children["StatefulSet", "docs-shard-1"]
    plan = world.plan()
    assert applied(plan) == [("StatefulSet", "docs-shard-1", "Created")]
    assert plan.steps[1] == Scale(5, "StatefulSet", "docs-shard-1", 1, "Created")


def test_a_child_that_is_being_deleted_is_waited_for() -> None:
    world = World().ready().change("StatefulSet", "docs-shard-1", deleting=True)
    assert world.plan().steps == ()


def test_a_foreign_service_is_named_and_left_alone() -> None:
    world = World().read_secrets()
    foreign = Child("Service", "docs-api", "theirs")
    world.children[foreign.key] = foreign
    plan = world.plan()
    assert "docs-api" not in [name for kind, name, _ in applied(plan) if kind == "Service"]
    assert plan.refusals == (
        Refusal(
            "foreign_object_not_ours",
            Reason.FOREIGN_OBJECT,
            "Service docs-api exists and is not ours: "
            "rename or delete it, or rename the ChatbotCluster",
        ),
    )


def test_children_of_a_former_object_of_this_name_are_waited_for() -> None:
    world = World().ready()
    world.uid = "another"
    world.status = {"observedGeneration": -1}
    plan = world.plan()
    assert {refusal.reason for refusal in plan.refusals} == {Reason.WAITING_FOR_CLEANUP}
    assert plan.status is not None
    assert [c["type"] for c in plan.status["conditions"]][-1] == "Reconciling"


def test_nothing_is_deleted_or_scaled_down_before_the_watch_has_caught_up() -> None:
    world = World(settled=True).ready()
    former = Child("Job", "docs-migrate-former", "former", owner_uid=UID)
    world.children[former.key] = former
    world.change("Deployment", "docs-api", replicas=5)
    world.settled = False
    plan = world.plan()
    assert plan.steps == ()
    assert {one.name for one in plan.refusals} == {"cache_is_settled"}


def test_a_scale_up_does_not_wait_for_the_watch() -> None:
    world = World().ready().edited({**MINIMAL, "api": {"scaling": {"minReplicas": 4}}})
    world.settled = False
    uid = world.children["Deployment", "docs-api"].uid
    assert world.plan().steps == (Scale(8, "Deployment", "docs-api", 4, "Scaled", uid),)


def test_the_applied_annotation_is_the_hash_of_everything_else() -> None:
    for step in World().read_secrets().plan().steps:
        if not isinstance(step, Apply):
            continue
        metadata = step.object["metadata"]
        bare = {k: v for k, v in metadata["annotations"].items() if k != names.ANNOTATION_APPLIED}
        rest = {k: v for k, v in metadata.items() if k != "annotations"}
        if bare:
            rest["annotations"] = bare
        assert applied_hash(step.object) == digest({**step.object, "metadata": rest})
        assert applied_hash(step.object).startswith("v1:")


def test_two_objects_in_two_namespaces_share_no_child() -> None:
    one = World(namespace="a").read_secrets().plan()
    two = World(namespace="b").read_secrets().plan()
    assert {s.object["metadata"]["namespace"] for s in one.steps if isinstance(s, Apply)} == {"a"}
    assert {s.object["metadata"]["namespace"] for s in two.steps if isinstance(s, Apply)} == {"b"}


def test_a_stranger_s_child_under_our_labels_is_not_pruned() -> None:
    world = World().ready()
    stranger = Child("Service", "docs-extra", "theirs", owner_uid="somebody")
    world.children[stranger.key] = stranger
    assert world.plan().steps == ()
    world.change(*stranger.key, owner_uid=UID)
    assert world.plan().steps == (Delete(9, "Service", "docs-extra", "theirs", "NotWanted"),)
