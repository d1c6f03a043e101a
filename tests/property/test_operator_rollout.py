"""Whatever is edited in the middle of what: every slot stays covered, and it ends."""

from __future__ import annotations

from typing import Any

from fakes.controllers import Controllers
from fakes.operator_world import MINIMAL, World
from hypothesis import given, settings
from hypothesis import strategies as st

from chatbot_operator.model import Json

#: One example is a whole world.
FEW = settings.default.max_examples // 4
#: Far more than any roll-out of these worlds takes; reaching it means that nothing ends.
_MOST_TURNS = 400


def spec(size: str, shards: int, replicas: int) -> Json:
    """Return a spec whose shard template follows from `size`."""
    retrieval = {"shards": shards, "replicasPerShard": replicas, "storage": {"size": size}}
    return {**MINIMAL, "retrieval": retrieval}


edits = st.tuples(st.sampled_from(["1Gi", "2Gi", "3Gi", "13Gi"]), st.integers(1, 3))


def broken_templates(shards: int) -> set[str]:
    """Return the hashes of the templates whose pods never start: those of 13 Gi."""
    other = World(spec=spec("13Gi", shards, 1)).created()
    return {other.children[key].template for key in Controllers(other).shards()}


@given(data=st.data(), shards=st.integers(1, 3), replicas=st.integers(1, 3))
@settings(max_examples=FEW)
def test_any_history_of_edits_keeps_every_slot_covered_and_ends(
    data: st.DataObject, shards: int, replicas: int
) -> None:
    world = World(spec=spec("1Gi", shards, replicas)).ready()
    controllers = Controllers(world, broken_templates(shards))
    for size, count in data.draw(st.lists(edits, max_size=5)):
        world.edited(spec(size, shards, count))
        for turn in data.draw(st.lists(st.integers(0, 5), max_size=20)):
            _turn(world, controllers, turn)
    world.edited(spec("2Gi", shards, replicas))
    _ends(world, controllers)
    assert world.plan().refusals == ()
    assert {pod.template for pods in controllers.sets.values() for pod in pods.values()} == {
        child.template for key, child in world.children.items() if key in controllers.sets
    }
    assert all(len(pods) == replicas for pods in controllers.sets.values())


def _turn(world: World, controllers: Controllers, choice: int) -> None:
    """Let one thing happen: a pass over what is there now, or a controller's step."""
    actions: list[Any] = ["pass", *controllers.actions()]
    action = actions[choice % len(actions)]
    if action == "pass":
        controllers.watch()
        world.execute()
    else:
        controllers.act(action)
    assert controllers.covered(), action
    assert len(controllers.rolling()) <= 1, action


def _ends(world: World, controllers: Controllers) -> None:
    for turn in range(_MOST_TURNS):
        _turn(world, controllers, turn)
        if turn % 7 == 0:
            _turn(world, controllers, 0)
        if not controllers.actions() and not world.plan().steps and not controllers.rolling():
            controllers.watch()
            if not world.plan().steps:
                return
    raise AssertionError(world.plan())
