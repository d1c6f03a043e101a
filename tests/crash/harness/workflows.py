"""What is done to an object while something goes wrong."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from fakes.apiserver import Admin
from fakes.objects import cluster, cluster_ref

from chatbot_operator.kinds import Object

Act = Callable[[Admin, str, int], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Workflow:
    """`act(admin, namespace, turn)` begins it; each turn of an object asks for something else.

    Two turns that are both even or both odd end in the same state, the size of claims aside.
    `prepare` makes the object before the first turn. `once`: every turn needs a new namespace.
    """

    name: str
    act: Act
    prepare: Act | None
    once: bool = False
    done: Callable[[Object | None], bool] = lambda obj: obj is not None and is_ready(obj)


def is_ready(obj: Object) -> bool:
    """Return whether an object's status says that nothing is left to do."""
    told = obj.get("status") or {}
    conditions = {one["type"]: one["status"] for one in told.get("conditions") or ()}
    moving = {"Reconciling", "Stalled"} & conditions.keys()
    current = told.get("observedGeneration") == obj["metadata"]["generation"]
    return current and conditions.get("Ready") == "True" and not moving


async def _create(admin: Admin, namespace: str, turn: int) -> None:
    await admin.create(cluster(namespace))


async def _create_with_data_outside(admin: Admin, namespace: str, turn: int) -> None:
    """Make an object whose deletion has to erase something that Kubernetes does not know."""
    secret = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "outside", "namespace": namespace},
        "stringData": {"dsn": "postgresql://chat@database.example/chat"},
    }
    await admin.create(secret)
    database = {"external": {"secretRef": {"name": "outside", "key": "dsn"}}}
    await admin.create(cluster(namespace, deletionPolicy="Delete", database=database))


async def _delete(admin: Admin, namespace: str, turn: int) -> None:
    await admin.delete(cluster_ref(namespace))


def _edit(spec_of_turn: Callable[[int], Object]) -> Act:
    async def act(admin: Admin, namespace: str, turn: int) -> None:
        await admin.patch(cluster_ref(namespace), {"spec": spec_of_turn(turn)})

    return act


def size_of(turn: int) -> str:
    """Return the size that claims have after a turn of `growth`."""
    return f"{1101 + turn}Mi"


def _grown(turn: int) -> Object:
    size = size_of(turn)
    stores = [{"name": "main", "pvc": {"size": size}}]
    return {"documents": {"stores": stores}, "database": {"managed": {"size": size}}}


def _edited(name: str, spec_of_turn: Callable[[int], Object]) -> Workflow:
    return Workflow(name, _edit(spec_of_turn), _create)


WORKFLOWS = {
    one.name: one
    for one in (
        Workflow("create", _create, prepare=None, once=True),
        _edited("live", lambda turn: {"inference": {"queue": {"maxWaiting": 33 - turn % 2}}}),
        _edited("boot", lambda turn: {"inference": {"drainSeconds": 160 - 10 * (turn % 2)}}),
        _edited("scale", lambda turn: {"api": {"scaling": {"minReplicas": 3 - turn % 2}}}),
        _edited(
            "image", lambda turn: {"inference": {"managed": {"image": f"ollama:{'ba'[turn % 2]}"}}}
        ),
        _edited("growth", _grown),
        Workflow(
            "delete",
            _delete,
            prepare=_create_with_data_outside,
            once=True,
            done=lambda obj: obj is None,
        ),
    )
}
