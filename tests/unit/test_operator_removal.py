"""The end of an object: what each of its steps waits for, and what it never does."""

from __future__ import annotations

from dataclasses import replace

from fakes.operator_world import World, golden_spec

from chatbot_core import names
from chatbot_core.names import Component, Role
from chatbot_operator import removal, status
from chatbot_operator.desired import erase
from chatbot_operator.model import Child, Delete, Plan, Pod, SetFinalizer

JOB = ("Job", "docs-erase")


def going() -> World:
    """Return an object with documents in a bucket, deleted a moment ago."""
    world = World(spec=golden_spec("erase-running")).with_users_secrets().ready()
    assert world.finalizers == (names.FINALIZER,)
    return world.deleted()


def erasing() -> World:
    """Return it with its Job at work."""
    world = going()
    world.execute()
    world.execute()
    assert JOB in world.children
    return world


def test_a_living_object_gets_the_finalizer_before_anything_else() -> None:
    first = World(spec=golden_spec("erase-running")).with_users_secrets().plan().steps[0]
    assert first == SetFinalizer(0, "docs", present=True, reason=removal.PROMISED)


def test_without_the_finalizer_a_deleted_object_gets_nothing() -> None:
    world = going()
    world.finalizers = ("example.com/theirs",)
    assert world.plan() == Plan()


def test_nothing_is_deleted_while_our_picture_may_be_old() -> None:
    world = going()
    world.settled = False
    assert world.plan().steps == ()
    world.settled = True
    assert {type(step) for step in world.plan().steps} == {Delete}


def test_the_job_waits_for_the_last_pod_of_each_tier_that_writes() -> None:
    for component in ("api", "ingest", "inference", "shard-1", "migrate"):
        world = going()
        world.execute()
        world.pods = (Pod("docs-x", component, deleting=True),)
        assert world.plan().steps == (), component
        world.now_s += status.QUIET_S
        assert "pod docs-x" in world.execute_and_read("Ready")
    for component in ("database", "store-main"):
        world = going()
        world.execute()
        world.pods = (Pod("docs-x", component),)
        assert len(world.plan().steps) == 1, component


def test_a_job_of_somebody_else_is_named_and_neither_believed_nor_touched() -> None:
    world = going()
    world.execute()
    world.children[JOB] = Child(*JOB, "theirs", succeeded=1)
    assert world.plan().steps == ()
    assert "Job docs-erase exists and is not ours" in world.execute_and_read("Stalled")


def test_a_pod_of_the_job_says_why_it_does_not_start() -> None:
    world = erasing()
    world.pods = (Pod("docs-erase-1", "erase", waiting_reason="ImagePullBackOff", message="no"),)
    assert world.execute_and_read("Stalled") == "pod docs-erase-1: ImagePullBackOff: no"


def test_a_spec_that_cannot_be_followed_keeps_the_object() -> None:
    world = going()
    world.spec = {**world.spec, "retrieval": {"minPassages": 9, "maxPassages": 2}}
    assert world.plan().steps == ()
    assert "spec.retrieval.minPassages" in world.execute_and_read("Stalled")


def test_secrets_that_nobody_has_read_hold_the_release_of_what_is_kept() -> None:
    world = going()
    world.secrets = {}
    world.edited({**world.spec, "deletionPolicy": "Retain"})
    plan = world.plan()
    assert plan.steps == ()
    assert [one.name for one in plan.wanted_secrets] == ["docs-admin", "docs-database"]


def test_a_secret_that_is_gone_is_not_made_again_at_the_end() -> None:
    world = going()
    world.edited({**world.spec, "deletionPolicy": "Retain"})
    world.secrets["docs-admin"] = replace(world.secrets["docs-admin"], value=None)
    names_of_steps = [
        step.object["metadata"]["name"] for step in world.plan().steps if hasattr(step, "object")
    ]
    assert names_of_steps == ["docs-database", "docs-database"]


def test_a_job_that_ends_after_the_deadline_still_releases() -> None:
    world = erasing()
    world.now_s += removal.DEADLINE_S + 1
    assert "not erased within 7200 s" in world.execute_and_read("Stalled")
    assert world.plan().requeue_after_s is None
    world.change(*JOB, succeeded=1)
    (step,) = world.plan().steps
    assert isinstance(step, SetFinalizer)
    assert (step.present, step.reason) == (False, removal.ERASED)


def test_the_words_of_the_job_name_bucket_and_database() -> None:
    spec = {**golden_spec("erase-running"), **golden_spec("erase-running-database")}
    world = World(spec=spec).with_users_secrets().ready().deleted()
    world.execute()
    world.execute()
    assert world.execute_and_read("Ready") == (
        "Job docs-erase erases objects in s3://team-a-documents/docs/ (store main) and tables in"
        " the database that Secret our-database opens"
    )
    assert erase.DEADLINE_S < removal.DEADLINE_S
    assert Role.ERASE.value == Component.ERASE.value
