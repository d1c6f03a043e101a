"""What holds for every world: kstatus, convergence, nothing destroyed on missing facts."""

from __future__ import annotations

from typing import Any

from fakes.operator_world import MINIMAL, World
from hypothesis import given, settings
from hypothesis import strategies as st

from chatbot_core.reasons import Reason
from chatbot_core.runtime_config import RuntimeStatus
from chatbot_core.v1alpha1 import ChatbotClusterStatus
from chatbot_operator.model import Apply, Delete, Fact, Json, Pod, Scale
from chatbot_operator.safety import foreign_object_not_ours

#: One example is a whole world.
FEW = settings.default.max_examples // 4
small = st.integers(min_value=1, max_value=3)
specs = st.fixed_dictionaries(
    {
        "deletionPolicy": st.sampled_from(["Retain", "Delete"]),
        "selfTest": st.sampled_from(["OnChange", "Disabled"]),
        "api": st.fixed_dictionaries({"scaling": st.fixed_dictionaries({"minReplicas": small})}),
        "retrieval": st.fixed_dictionaries({"shards": small, "replicasPerShard": small}),
    }
).map(lambda it: {**MINIMAL, **it})
pods = st.builds(
    Pod,
    name=st.just("p"),
    component=st.sampled_from(["api", "shard-0", "inference", "ingest", "database", "migrate"]),
    waiting_reason=st.sampled_from(["", "ErrImagePull", "CrashLoopBackOff", "Weird"]),
    restarts=st.integers(0, 9),
    unschedulable=st.sampled_from(["", "0/1 nodes are available"]),
)
disturbances = st.fixed_dictionaries(
    {
        "ready": st.integers(0, 2),
        "current": st.integers(0, 3),
        "updated": st.integers(0, 3),
        "deleting": st.booleans(),
        "applied": st.sampled_from(["", "v1:former"]),
        "owner_uid": st.sampled_from(["somebody", ""]),
        "managed": st.sampled_from([None, "{}"]),
    }
)
fields = st.sets(
    st.sampled_from(["ready", "current", "updated", "deleting", "applied", "owner_uid", "managed"])
)


def conditions(status: Json) -> dict[str, Json]:
    return {one["type"]: one for one in status["conditions"]}


@st.composite
def worlds(draw: st.DrawFn) -> World:
    """Draw a world somewhere between new and ready, with some things wrong."""
    world = World(spec=draw(specs))
    for verb in ("created", "rolled_out", "reporting", "execute")[: draw(st.integers(0, 4))]:
        getattr(world, verb)()
    for key in sorted(world.children):
        if draw(st.integers(0, 5)) == 0:
            wrong: dict[str, Any] = draw(disturbances)
            chosen = draw(fields)
            world.change(*key, **{k: v for k, v in wrong.items() if k in chosen})
    world.pods = tuple(draw(st.lists(pods, max_size=2)))
    world.settled = draw(st.booleans())
    world.spec = {**world.spec, "suspend": draw(st.booleans())}
    if draw(st.booleans()):
        world.runtime = Fact[RuntimeStatus].unknown()
    return world


def kstatus(generation: int, status: Json) -> str:
    """Return what cli-utils says of an object without deletionTimestamp (its generic rules)."""
    found = {kind: one["status"] for kind, one in conditions(status).items()}
    if status.get("observedGeneration", generation) != generation:
        return "InProgress"
    if found.get("Reconciling") == "True":
        return "InProgress"
    if found.get("Stalled") == "True":
        return "Failed"
    return {"True": "Current", "False": "InProgress"}.get(found.get("Ready", "True"), "InProgress")


@given(worlds())
@settings(max_examples=FEW)
def test_the_judge_of_others_calls_current_what_is_ready_and_nothing_else(world: World) -> None:
    assert kstatus(world.generation, {"observedGeneration": -1, "conditions": []}) == "InProgress"
    world.execute()
    if world.status["observedGeneration"] != world.generation:
        return
    found = conditions(world.status)
    judged = kstatus(world.generation, world.status)
    if judged == "Current":
        assert found["Ready"]["status"] == "True"
    if found["Ready"]["status"] == "False":
        # Doomed and progressing are told apart: a bare False would be both.
        assert judged == ("Failed" if "Stalled" in found else "InProgress")
        assert {"Stalled", "Reconciling"} & set(found)
    assert (judged == "Failed") == ("Stalled" in found)
    world.edited({**world.spec, "deletionPolicy": "Delete"})
    assert kstatus(world.generation, world.status) == "InProgress"


@given(worlds())
@settings(max_examples=FEW)
def test_a_second_look_at_the_same_world_writes_no_status(world: World) -> None:
    for _ in range(2):
        world.execute()
    settled = world.status
    world.now_s += 1.0
    world.execute()
    assert world.status == settled


@given(worlds())
@settings(max_examples=FEW)
def test_kstatus_holds_in_every_written_status(world: World) -> None:
    status = world.plan().status
    if status is None:
        return
    found = conditions(status)
    ChatbotClusterStatus.model_validate(status)
    assert status["observedGeneration"] == world.generation
    course = {"Reconciling", "Stalled"} & set(found)
    assert len(course) <= 1
    assert all(found[kind]["status"] == "True" for kind in course)
    assert found["Ready"]["status"] == "True" or course
    assert all(Reason(one["reason"]) for one in found.values())


@given(worlds())
@settings(max_examples=FEW)
def test_an_unsettled_picture_destroys_nothing(world: World) -> None:
    world.settled = False
    for step in world.plan().steps:
        assert not isinstance(step, Delete)
        if isinstance(step, Scale) and step.uid is not None:
            now = world.children[step.kind, step.name].replicas
            assert now is None or step.replicas >= now


@given(worlds())
@settings(max_examples=FEW)
def test_no_step_touches_what_is_not_ours(world: World) -> None:
    foreign = {key for key, child in world.children.items() if child.owner_uid == "somebody"}
    for step in world.plan().steps:
        if isinstance(step, Apply):
            touched = step.object["kind"], step.object["metadata"]["name"]
        elif isinstance(step, Delete | Scale):
            touched = step.kind, step.name
        else:
            continue
        assert touched not in foreign


@given(worlds())
@settings(max_examples=FEW)
def test_whatever_was_wrong_the_world_comes_to_rest_ready(world: World) -> None:
    for key, child in list(world.children.items()):
        foreign = foreign_object_not_ours(child, world.observed().owner)
        if child.deleting or foreign is not None:
            del world.children[key]
    world.settled, world.pods = True, ()
    world.spec = {**world.spec, "suspend": False}
    world.created()
    # Shards get a new template one after the other, each with a pod more meanwhile.
    for _ in range(3 * len(world.children)):
        world.rolled_out().reporting()
        if not world.execute().steps:
            break
    assert conditions(world.status)["Ready"]["status"] == "True"
    again = world.plan()
    assert (again.steps, again.refusals, again.status) == ((), (), None)


@settings(max_examples=FEW)
@given(worlds())
def test_a_suspended_object_gets_no_step_and_says_so(world: World) -> None:
    world.spec = {**world.spec, "suspend": True}
    plan = world.read_secrets().plan()
    assert plan.steps == ()
    if plan.status is not None:
        assert conditions(plan.status)["Ready"]["reason"] == "Suspended"
