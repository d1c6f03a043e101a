"""`owns_all` against managedFields made from the object itself, and with one leaf taken away."""

from __future__ import annotations

from collections.abc import Iterator

from fakes.managed_fields import managed_fields
from fakes.operator_world import World, golden_spec
from hypothesis import given, settings
from hypothesis import strategies as st

from chatbot_operator.drift import owns_all
from chatbot_operator.model import Apply, Json


def _objects() -> list[Json]:
    world = World(spec=golden_spec("everything-set"))
    world.given_secret("our-admin", "username", "password").read_secrets()
    return [step.object for step in world.plan().steps if isinstance(step, Apply)]


OBJECTS = _objects()


def leaves(managed: Json, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Yield the path of every leaf; `.` only says that an entry exists."""
    for key, below in managed.items():
        if key != ".":
            yield from leaves(below, (*path, key)) if below else iter([(*path, key)])


def without(managed: Json, path: tuple[str, ...]) -> Json:
    """Take a leaf away, with the parents that held nothing else."""
    head, *rest = path
    below = without(managed[head], tuple(rest)) if rest else {}
    kept = {key: value for key, value in managed.items() if key != head}
    return {**kept, head: below} if set(below) - {"."} else kept


@given(st.sampled_from(OBJECTS))
def test_what_was_applied_is_owned(desired: Json) -> None:
    assert owns_all(desired, managed_fields(desired))


@given(st.data())
@settings(max_examples=300)
def test_no_leaf_can_be_taken_unseen(data: st.DataObject) -> None:
    desired = data.draw(st.sampled_from(OBJECTS))
    managed = managed_fields(desired)
    taken = data.draw(st.sampled_from(sorted(leaves(managed))))
    assert not owns_all(desired, without(managed, taken)), taken


@given(st.data())
def test_additions_of_others_raise_no_alarm(data: st.DataObject) -> None:
    desired = data.draw(st.sampled_from(OBJECTS))
    managed = managed_fields(desired)
    grown = {**managed, "f:status": {"f:theirs": {}}}
    grown["f:metadata"] = {**managed["f:metadata"], "f:finalizers": {'v:"x"': {}}}
    assert owns_all(desired, grown)
