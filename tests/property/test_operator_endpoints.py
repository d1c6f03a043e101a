"""Whatever inference follows whatever other: somebody who can answer is always left."""

from __future__ import annotations

from fakes.operator_world import MINIMAL, World
from hypothesis import given, settings
from hypothesis import strategies as st

from chatbot_operator.model import Child, Json
from chatbot_operator.progress import INFERENCE, tier_of

names = st.lists(st.sampled_from(["a", "b", "c"]), unique=True, max_size=3)


def inference(endpoints: list[str]) -> Json:
    """Return a spec with these external endpoints, in this order; with none it is managed."""
    stated = [{"name": name, "url": f"https://{name}.example.com"} for name in endpoints]
    external = {"external": {"endpoints": stated}} if stated else {}
    return {"inference": {**MINIMAL["inference"], **external}}


def workloads(world: World) -> dict[str, Child]:
    return {
        child.name: child
        for child in world.children.values()
        if child.kind == "Deployment"
        and tier_of(child.labels["app.kubernetes.io/component"]) == INFERENCE
    }


def wanted(endpoints: list[str]) -> set[str]:
    return {f"docs-inference-{name}" for name in endpoints} or {"docs-inference"}


@given(names, names, st.data())
@settings(max_examples=60, deadline=None)
def test_a_change_of_inference_never_removes_the_last_that_answers(
    before: list[str], after: list[str], data: st.DataObject
) -> None:
    world = World(spec=inference(before)).ready()
    world.edited(inference(after))
    for _ in range(4):
        for name, child in workloads(world).items():
            # Who can answer goes on; the others come when they like.
            ready = 1 if child.ready else data.draw(st.integers(0, 1))
            counts = {"ready": ready, "current": 1, "updated": 1}
            world.change(child.kind, name, observed_generation=child.generation, **counts)
        world.execute()
        assert any(child.ready for child in workloads(world).values())
    world.rolled_out().execute()
    assert workloads(world).keys() == wanted(after)


@given(names.flatmap(lambda it: st.tuples(st.just(it), st.permutations(it))))
@settings(max_examples=30, deadline=None)
def test_another_order_of_the_endpoints_is_no_change(orders: tuple[list[str], list[str]]) -> None:
    before, after = orders
    world = World(spec=inference(before)).ready()
    world.edited(inference(after))
    assert world.plan().steps == ()
