"""The stores together, and `observe`: what one pass may look at, from memory only."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from chatbot_core import names
from chatbot_operator import entries
from chatbot_operator.facts import RuntimeFacts, SecretFacts
from chatbot_operator.feeders import scope
from chatbot_operator.kinds import AUTOSCALERS, WATCHED, Object, Ref, version_of
from chatbot_operator.model import (
    Autoscaler,
    Child,
    ChildKey,
    Observed,
    OperatorSettings,
    Owner,
    Refusal,
)
from chatbot_operator.store import Entry, OwnerKey, Store

#: Kinds that have replicas.
SCALED: Final = ("Deployment", "StatefulSet")


@dataclass(slots=True)
class Memory:
    """What the passes of one object remember; lost on a restart without harm."""

    uid: str
    refused: Mapping[ChildKey, Refusal] = field(default_factory=dict)
    status_written_at_s: float | None = None


class World:
    """Everything the operator knows. `namespaces` empty = the whole cluster."""

    def __init__(
        self,
        wake: Callable[[OwnerKey], None],
        namespaces: tuple[str, ...] = (),
        operator_class: str = "",
    ) -> None:
        self.operator_class = operator_class
        self.namespaces = namespaces or ("",)
        self.owners: Store[Ref, Owner] = Store(wake)
        self.children: Store[Ref, Child] = Store(wake, entries.same_child)
        self.pods: Store[Ref, entries.PodEntry] = Store(wake)
        #: Keyed by what they scale, not by whose that is: they may be there before it.
        self.autoscalers: Store[Ref, Autoscaler] = Store(self._wake_owner_of)
        self._wake = wake
        self.secrets = SecretFacts(wake)
        self.runtime = RuntimeFacts(wake)
        self._memories: dict[OwnerKey, Memory] = {}
        for namespace in self.namespaces:
            self.owners.expect(scope(names.KIND, namespace))
            for kind in WATCHED:
                store = self.pods if kind == "Pod" else self.children
                store.expect(scope(kind, namespace))
            for kind in AUTOSCALERS:
                self.autoscalers.expect(scope(kind, namespace))

    @property
    def complete(self) -> bool:
        """Whether every watched kind was listed at least once."""
        return all(store.complete for store in self._stores)

    async def until_complete(self) -> None:
        """Wait until every watched kind was listed once."""
        for store in self._stores:
            await store.until_complete()

    @property
    def _stores(self) -> tuple[Store[Ref, Any], ...]:
        return self.owners, self.children, self.pods, self.autoscalers

    def _wake_owner_of(self, target: OwnerKey) -> None:
        for kind in SCALED:
            owner = self.children.owner_of(Ref(kind, *target))
            if owner is not None:
                self._wake(owner)

    def own_key(self, obj: Object) -> OwnerKey | None:
        """Return the key of a ChatbotCluster, None for one of another operator's class."""
        ours = entries.operator_class(obj) == self.operator_class
        return entries.own_key(obj) if ours else None

    def owner(self, key: OwnerKey) -> Owner | None:
        """Return the ChatbotCluster of a key, or None when there is none."""
        return self.owners.get(Ref(names.KIND, *key))

    def memory(self, owner: Owner) -> Memory:
        """Return what earlier passes of this very object (its UID) remember."""
        key = (owner.namespace, owner.name)
        memory = self._memories.get(key)
        if memory is None or memory.uid != owner.uid:
            memory = self._memories[key] = Memory(owner.uid)
        return memory

    def wrote_child(self, obj: Object) -> None:
        """Take the answer to a write of a child; Secrets are facts of their own."""
        owner = entries.owner_of(obj)
        if owner is None:
            return
        ref = Ref(str(obj["kind"]), owner[0], str(obj["metadata"]["name"]))
        entry = Entry(entries.child(obj), owner, int(version_of(obj)))
        self.children.wrote(self.scope_of(ref), ref, entry)

    def deleted_child(self, ref: Ref, owner: OwnerKey) -> None:
        """Note that our delete was accepted: the child is going until the watch says gone."""
        child = self.children.get(ref)
        if child is not None:
            going = Entry(replace(child, deleting=True), owner, int(child.resource_version) + 1)
            self.children.wrote(self.scope_of(ref), ref, going)

    def read_child(self, ref: Ref, live: Object | None) -> None:
        """Take a live read that contradicted the store.

        What the watch has shown meanwhile stands: a shield for it would never be lifted.
        """
        labels = {} if live is None else live["metadata"].get("labels") or {}
        if live is not None and labels.get(names.LABEL_MANAGED_BY) == names.MANAGER:
            self.wrote_child(live)
        else:
            self.children.forget([ref])

    def wrote_owner(self, obj: Object) -> None:
        """Take the answer to a status write; where another operator took over, nothing is kept."""
        key = self.own_key(obj)
        if key is not None:
            ref, value = Ref(names.KIND, *key), entries.owner(obj)
            self.owners.wrote(self.scope_of(ref), ref, Entry(value, key, int(version_of(obj))))

    def forget(self, key: OwnerKey) -> bool:
        """Drop what is kept beside the watches about an object; return whether any pass saw it."""
        self.owners.forget([Ref(names.KIND, *key)])
        self.secrets.forget(key)
        self.runtime.forget(key)
        return self._memories.pop(key, None) is not None

    def scope_of(self, ref: Ref) -> str:
        """Return the scope of the feeder that tells about an object."""
        return scope(ref.kind, "" if self.namespaces == ("",) else ref.namespace)


def observe(world: World, key: OwnerKey, settings: OperatorSettings) -> Observed | None:
    """Return what is known of an object now, or None when it is not there."""
    owner = world.owner(key)
    if owner is None:
        return None
    children = world.children.of_owner(key)
    memory = world.memory(owner)
    return Observed(
        owner=owner,
        settings=settings,
        children={(ref.kind, ref.name): child for ref, child in children.items()},
        children_complete=world.complete,
        settled=world.children.settled(key),
        autoscalers=_autoscalers(world, children),
        pods=tuple(entry.pod for entry in world.pods.of_owner(key).values()),
        secrets=world.secrets.of_owner(key),
        runtime=world.runtime.fact(key),
        refused=memory.refused,
        status_written_at_s=memory.status_written_at_s,
    )


def _autoscalers(world: World, children: Mapping[Ref, Child]) -> tuple[Autoscaler, ...]:
    """Return who else scales one of these children, by name."""
    found = [
        one
        for ref in children
        if ref.kind in SCALED
        for one in world.autoscalers.of_owner((ref.namespace, ref.name)).values()
        if one.target_kind == ref.kind
    ]
    return tuple(sorted(found, key=lambda one: (one.target, one.kind, one.name)))
