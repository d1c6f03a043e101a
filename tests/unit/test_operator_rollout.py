"""Who gets a new template in which pass, and how many pods a shard has meanwhile."""

from __future__ import annotations

from typing import Any

from fakes.controllers import Controllers
from fakes.operator_world import MINIMAL, World, applied

from chatbot_core.reasons import Reason
from chatbot_core.runtime_config import RuntimeStatus
from chatbot_operator.model import Apply, Delete, Fact, Plan, Pod, Refusal, Scale

SHARD_0, SHARD_1 = ("StatefulSet", "docs-shard-0"), ("StatefulSet", "docs-shard-1")


def ready(**retrieval: Any) -> World:
    return World(spec={**MINIMAL, "retrieval": {"shards": 2, **retrieval}}).ready()


def with_size(world: World, size: str, **retrieval: Any) -> World:
    """Edit the shards' pod template."""
    storage = {"shards": 2, **retrieval, "storage": {"size": size}}
    return world.edited({**world.spec, "retrieval": storage})


def shard_steps(plan: Plan) -> list[str]:
    """Return what a plan does with StatefulSets of shards, in order."""
    found: list[str] = []
    for step in plan.steps:
        if isinstance(step, Apply) and step.object["kind"] == "StatefulSet":
            found.append(f"apply {step.object['metadata']['name']}")
        elif isinstance(step, Scale) and "shard" in step.name:
            found.append(f"scale {step.name} to {step.replicas}")
    return found


def held(plan: Plan) -> list[str]:
    return [one.name for one in plan.refusals]


def test_a_shard_of_one_gets_a_second_pod_before_its_new_template() -> None:
    plan = with_size(ready(), "20Gi").plan()
    assert shard_steps(plan) == ["scale docs-shard-0 to 2", "apply docs-shard-0"]
    assert plan.refusals == (
        Refusal(
            "one_shard_at_a_time",
            Reason.ROLLING_OUT,
            "StatefulSet docs-shard-1 gets its new template when StatefulSet docs-shard-0 "
            "is ready with all its pods",
        ),
    )


def test_shards_roll_one_after_the_other_and_return_to_one_pod() -> None:
    world = with_size(ready(), "20Gi")
    controllers = Controllers(world)
    seen = []
    for _ in range(8):
        seen += shard_steps(world.execute())
        controllers.settle()
    assert seen == [
        "scale docs-shard-0 to 2",
        "apply docs-shard-0",
        "scale docs-shard-0 to 1",
        "scale docs-shard-1 to 2",
        "apply docs-shard-1",
        "scale docs-shard-1 to 1",
    ]
    assert world.plan().refusals == ()


def test_a_shard_of_two_needs_no_third_pod() -> None:
    plan = with_size(ready(replicasPerShard=2), "20Gi", replicasPerShard=2).plan()
    assert shard_steps(plan) == ["apply docs-shard-0"]


def test_pods_that_are_too_many_stay_while_the_template_rolls() -> None:
    world = with_size(ready(), "20Gi")
    controllers = Controllers(world)
    world.execute()
    controllers._sync(SHARD_0)
    controllers.watch()
    plan = world.plan()
    assert shard_steps(plan) == []
    assert plan.refusals[0] == Refusal(
        "every_slot_stays_covered",
        Reason.ROLLING_OUT,
        "StatefulSet docs-shard-0 keeps 2 pods until those that stay are ready with its "
        "current template: 1 of 2 run it",
    )


def test_a_second_pod_that_is_ending_is_not_asked_for_again() -> None:
    world = ready().change(*SHARD_0, current=2, updated=1)
    assert shard_steps(world.plan()) == []


def test_a_stuck_template_is_replaced_by_the_former_and_by_a_third_one() -> None:
    for size in ("10Gi", "30Gi"):
        world = with_size(ready(), "20Gi")
        controllers = Controllers(world)
        world.execute()
        controllers.broken = {world.children[SHARD_0].template}
        controllers.settle()
        with_size(world, size)
        assert shard_steps(world.execute()) == ["apply docs-shard-0"]
        controllers.settle()
        assert controllers.sets[SHARD_0][1].ready
        assert controllers.covered()


def test_a_template_waits_where_only_the_last_pod_is_ready() -> None:
    world = with_size(ready(replicasPerShard=2), "20Gi", replicasPerShard=2)
    world.change(*SHARD_0, ready=1)
    world.pods = (Pod("docs-shard-0-1", "shard-0", ready=True), Pod("docs-shard-0-0", "shard-0"))
    assert world.plan().refusals[0] == Refusal(
        "every_slot_stays_covered",
        Reason.ROLLING_OUT,
        "StatefulSet docs-shard-0 gets its new template when another of its pods than the last "
        "is ready: 1 of 2 are",
    )
    assert shard_steps(world.plan()) == []


def test_a_template_waits_while_nobody_knows_which_pods_are_ready() -> None:
    world = with_size(ready(replicasPerShard=2), "20Gi", replicasPerShard=2)
    world.change(*SHARD_0, ready=1)
    assert shard_steps(world.plan()) == []
    assert "every_slot_stays_covered" in held(world.plan())


def test_shards_without_a_ready_pod_have_nothing_to_lose() -> None:
    world = with_size(ready(), "20Gi")
    world.change(*SHARD_0, ready=0).change(*SHARD_1, ready=0)
    assert shard_steps(world.plan()) == ["apply docs-shard-0", "apply docs-shard-1"]


def test_fewer_replicas_wait_for_a_pod_that_stays() -> None:
    world = ready(replicasPerShard=2).edited({**MINIMAL, "retrieval": {"shards": 2}})
    world.change(*SHARD_0, ready=1)
    world.pods = (Pod("docs-shard-0-1", "shard-0", ready=True),)
    assert shard_steps(world.plan()) == ["scale docs-shard-1 to 1"]
    world.change(*SHARD_0, ready=0)
    world.pods = ()
    assert shard_steps(world.plan()) == ["scale docs-shard-0 to 1", "scale docs-shard-1 to 1"]


def test_a_change_beside_the_template_goes_to_all_shards_at_once() -> None:
    world = ready()
    for key in (SHARD_0, SHARD_1):
        world.change(*key, applied="v1:with-another-label")
    assert shard_steps(world.plan()) == ["apply docs-shard-0", "apply docs-shard-1"]


def test_a_version_goes_through_the_tiers_in_order() -> None:
    world = World().ready().edited({**MINIMAL, "version": "0.2"})
    controllers = Controllers(world)
    order: list[str] = []
    for _ in range(14):
        changed = applied(world.execute())
        order += [name for kind, name, _ in changed if kind in {"StatefulSet", "Deployment", "Job"}]
        controllers.settle()
        world.reporting()
    job = next(name for kind, name in world.children if kind == "Job")
    # Their labels change at once; their pods do not depend on the version.
    unversioned = {"docs-database", "docs-store-main"}
    assert [name for name in order if name not in unversioned] == [
        job,
        "docs-shard-0",
        "docs-shard-1",
        "docs-inference",
        "docs-ingest",
        "docs-api",
    ]
    world.execute()
    assert world.condition("Ready")["status"] == "True"


def test_a_tier_that_waits_says_for_whom() -> None:
    world = World().ready().edited({**MINIMAL, "version": "0.2"})
    world.execute()
    found = {one.message for one in world.plan().refusals}
    jobs = [child.name for child in world.children.values() if child.kind == "Job"]
    (job,) = [name for name in jobs if not world.children["Job", name].succeeded]
    assert f"Deployment docs-api stays at version 0.1.0 until Job {job} is done with 0.2" in found
    assert world.condition("Reconciling")["status"] == "True"


def test_another_image_of_the_same_version_goes_to_all_tiers_at_once() -> None:
    image = {"digest": f"sha256:{'0' * 64}"}
    world = World().ready().edited({**MINIMAL, "image": image})
    assert {"docs-inference", "docs-ingest", "docs-api"} <= {n for _, n, _ in applied(world.plan())}


def test_no_migration_starts_while_the_database_is_away() -> None:
    world = World().ready().edited({**MINIMAL, "version": "0.2"})
    world.change("StatefulSet", "docs-database", ready=0)
    plan = world.plan()
    assert "database_reachable_before_migration" in held(plan)
    # A Job that lost its labels is found again; none is made.
    (job,) = [one for one in plan.steps if isinstance(one, Apply) and one.object["kind"] == "Job"]
    assert (job.reason, job.uid, job.heal) == ("Healed", None, True)
    world.change("StatefulSet", "docs-database", ready=1)
    assert [kind for kind, _, _ in applied(world.plan()) if kind == "Job"] == ["Job"]


def test_an_external_database_is_away_when_the_api_says_so() -> None:
    external = {"external": {"secretRef": {"name": "pg", "key": "dsn"}}}
    world = World(spec={**MINIMAL, "database": external}).with_users_secrets().ready()
    world.edited({**world.spec, "version": "0.2"}).reporting(database="unavailable")
    assert "database_reachable_before_migration" in held(world.plan())
    world.runtime = Fact[RuntimeStatus].unknown()
    assert "database_reachable_before_migration" not in held(world.plan())


def surplus() -> World:
    """Return a world with a third shard that the spec no longer asks for."""
    world = World(spec={**MINIMAL, "retrieval": {"shards": 3}}).ready()
    return world.edited({**MINIMAL, "retrieval": {"shards": 2}})


def deleted(plan: Plan) -> list[str]:
    steps = [step for step in plan.steps if isinstance(step, Delete) and step.kind != "Job"]
    return [f"{step.kind} {step.name}" for step in steps]


def test_a_shard_goes_when_it_is_known_to_own_no_slot() -> None:
    world = surplus().reporting(owned_slots=(512, 512, 0))
    assert deleted(world.plan()) == ["Service docs-shard-2", "StatefulSet docs-shard-2"]
    world.reporting(owned_slots=(512, 512))
    assert deleted(world.plan()) == ["Service docs-shard-2", "StatefulSet docs-shard-2"]


def test_a_shard_that_owns_slots_stays_and_says_how_many() -> None:
    world = surplus().reporting(owned_slots=(400, 400, 224))
    world.execute()
    assert deleted(world.plan()) == []
    message = "Service docs-shard-2 stays while its shard owns 224 slots"
    assert Refusal("shard_still_owns_slots", Reason.WAITING_FOR_SLOTS, message) in (
        world.plan().refusals
    )
    waiting = [one for one in world.plan().refusals if one.reason is Reason.WAITING_FOR_SLOTS]
    assert len(waiting) == 2


def test_a_shard_of_which_nobody_tells_stays() -> None:
    for world in (surplus(), surplus().reporting(owned_slots=(512, 512, 0)).later(120.0)):
        assert deleted(world.plan()) == []
    world.runtime = Fact[RuntimeStatus].unknown()
    assert deleted(world.plan()) == []
