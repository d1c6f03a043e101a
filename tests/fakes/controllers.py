"""A small model of the controllers of Kubernetes: what they do with the workloads of a `World`.

StatefulSets after `updateStatefulSet` of pkg/controller/statefulset/stateful_set_control.go, with
policy Parallel; a pod that is ended answers no more and is counted until it is gone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from fakes.operator_world import World

from chatbot_operator.model import ChildKey, Pod


@dataclass
class FakePod:
    template: str
    ready: bool = False
    ending: bool = False


@dataclass
class Controllers:
    """Runs the workloads of a world; pods of a template in `broken` never become ready."""

    world: World
    broken: set[str] = field(default_factory=set)
    sets: dict[ChildKey, dict[int, FakePod]] = field(default_factory=dict)
    seen: dict[ChildKey, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Begin with what is ready already."""
        for key in self.shards():
            child = self.world.children[key]
            self.sets[key] = {i: FakePod(child.template, ready=True) for i in range(child.ready)}
            self.seen[key] = child.generation
        self.watch()

    def shards(self) -> list[ChildKey]:
        kind = "StatefulSet"
        return sorted(key for key in self.world.children if key[0] == kind and "-shard-" in key[1])

    def actions(self) -> list[tuple[str, ChildKey]]:
        """Return everything that could happen next."""
        found = [("sync", key) for key in self.shards() if self._would_sync(key)]
        found += [("gone", key) for key in self.shards() if self._ending(key)]
        return found + [("ready", key) for key in self.shards() if self._starting(key)]

    def act(self, action: tuple[str, ChildKey]) -> None:
        verb, key = action
        if verb == "ready":
            self.sets[key][self._starting(key)[0]].ready = True
        elif verb == "gone":
            del self.sets[key][self._ending(key)[0]]
        else:
            self._sync(key)

    def watch(self) -> None:
        """Show the world what became of the workloads."""
        shown: list[Pod] = []
        for key, pods in self.sets.items():
            child = self.world.children[key]
            self.world.change(
                *key,
                current=len(pods),
                ready=sum(pod.ready for pod in pods.values()),
                updated=sum(
                    pod.template == child.template and not pod.ending for pod in pods.values()
                ),
                observed_generation=self.seen[key],
            )
            shown += [
                Pod(f"{key[1]}-{i}", child.component, ready=pod.ready, deleting=pod.ending)
                for i, pod in pods.items()
            ]
        self.world.pods = tuple(shown)
        self._others()

    def covered(self) -> bool:
        """Return whether every shard has a pod that answers."""
        return all(any(pod.ready for pod in pods.values()) for pods in self.sets.values())

    def rolling(self) -> list[ChildKey]:
        """Return the shards of which some pod runs another template than its set states."""
        return [
            key
            for key, pods in self.sets.items()
            if any(
                pod.template != self.world.children[key].template and not pod.ending
                for pod in pods.values()
            )
        ]

    def settle(self) -> None:
        """Let everything happen that can, without a pass of the operator."""
        while actions := self.actions():
            self.act(actions[0])
        self.watch()

    def _starting(self, key: ChildKey) -> Sequence[int]:
        return [
            ordinal
            for ordinal, pod in sorted(self.sets[key].items())
            if not (pod.ready or pod.ending) and pod.template not in self.broken
        ]

    def _ending(self, key: ChildKey) -> Sequence[int]:
        return [ordinal for ordinal, pod in sorted(self.sets[key].items()) if pod.ending]

    def _would_sync(self, key: ChildKey) -> bool:
        return (
            self.sets[key] != self._synced(key)
            or self.seen[key] < self.world.children[key].generation
        )

    def _sync(self, key: ChildKey) -> None:
        self.sets[key] = self._synced(key)
        self.seen[key] = self.world.children[key].generation

    def _synced(self, key: ChildKey) -> dict[int, FakePod]:
        child = self.world.children[key]
        wanted = range(child.replicas or 0)
        pods = {i: self._kept(pod, stays=i in wanted) for i, pod in self.sets[key].items()}
        for ordinal in wanted:
            pods.setdefault(ordinal, FakePod(child.template))
        for ordinal in reversed(wanted):
            if pods[ordinal].template != child.template and not pods[ordinal].ending:
                pods[ordinal] = self._kept(pods[ordinal], stays=False)
                break
            if not pods[ordinal].ready:
                break
        return pods

    def _kept(self, pod: FakePod, *, stays: bool) -> FakePod:
        return pod if stays or pod.ending else FakePod(pod.template, ending=True)

    def _others(self) -> None:
        """Let Deployments, claims and Jobs be done; a Deployment never ends its last good pods."""
        for (kind, name), child in list(self.world.children.items()):
            if kind == "Job":
                self.world.change(kind, name, succeeded=1)
            elif kind == "PersistentVolumeClaim":
                self.world.change(kind, name, phase="Bound", capacity=child.requested)
            elif kind == "Deployment" or (kind == "StatefulSet" and "-shard-" not in name):
                count = child.replicas or 0
                counts = dict.fromkeys(("current", "ready", "updated", "available"), count)
                self.world.change(kind, name, observed_generation=child.generation, **counts)
