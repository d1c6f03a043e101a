"""Which change goes out in this pass: PURE decisions of a roll-out, and the predicates behind them.

Facts of Kubernetes that they rest on: a StatefulSet with policy Parallel and RollingUpdate ends the
pod of the highest ordinal that does not run the template, whether it is ready or not, and goes on
with the next one only when that pod is ready; a scale-down takes the highest ordinals
(pkg/controller/statefulset/stateful_set_control.go, `updateStatefulSet`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from chatbot_core.names import Component
from chatbot_core.reasons import Reason
from chatbot_operator.desired.context import Rank
from chatbot_operator.desired.target import Outline
from chatbot_operator.model import Child, ChildKey, Observed, Refusal

_SHARD_PREFIX: Final = f"{Component.SHARD.value}-"
#: A RuntimeStatus this old says nothing about who owns which slot now.
STATUS_MAX_AGE_S: Final = 60.0
#: With fewer pods than these a shard would not answer while its pod is replaced.
_SURGE: Final = 2


@dataclass(frozen=True, slots=True)
class Course:
    """What a pass does about roll-outs, by child.

    `held` keeps a child's template as it is; `replicas` is how many of a shard's pods shall run
    now; `kept` says why pods that are too many stay.
    """

    held: Mapping[ChildKey, Refusal]
    replicas: Mapping[ChildKey, int]
    kept: Mapping[ChildKey, Refusal]


@dataclass(frozen=True, slots=True)
class Shard:
    """One shard's StatefulSet: as it shall be, as it is, and what its pods add to that.

    `ready` are the ordinals of the pods that answer, `ending` is how many are being ended: those
    are still counted by the status, but not among the updated ones.
    """

    outline: Outline
    there: Child
    ready: frozenset[int]
    ending: int

    @property
    def name(self) -> str:
        """Return kind and name, for people."""
        return " ".join(self.outline.key)

    @property
    def wanted(self) -> int:
        """Return how many replicas the spec says."""
        return self.outline.replicas or 0

    @property
    def running(self) -> int:
        """Return how many replicas the StatefulSet asks for now."""
        return self.there.replicas or 0

    @property
    def serves(self) -> bool:
        """Return whether any pod answers for the shard's slots."""
        return bool(self.ready) or self.there.ready > 0

    @property
    def seen(self) -> bool:
        """Return whether the controller has seen our last write: its counts are of that."""
        return self.there.observed_generation >= self.there.generation

    @property
    def replacing(self) -> bool:
        """Return whether some pod runs a former template and is not being ended yet."""
        return self.there.updated + self.ending < self.there.current

    @property
    def rolling(self) -> bool:
        """Return whether pods are being replaced, or the controller has yet to look."""
        return not self.seen or self.replacing

    @property
    def at_rest(self) -> bool:
        """Return whether every replica that the spec says is ready, and no other is there."""
        return runs_as_told(self.there, self.wanted)


def course(observed: Observed, children: Sequence[Outline]) -> Course:
    """Return what goes out in this pass; at most one shard that serves gets a new template."""
    held: dict[ChildKey, Refusal] = {}
    replicas: dict[ChildKey, int] = {}
    kept: dict[ChildKey, Refusal] = {}
    shards = _shards(observed, children)
    busy = [shard.outline.key for shard in shards.values() if not shard.at_rest]
    for outline in children:
        refusal = _refusal_of_order(outline, children, observed)
        shard = shards.get(outline.key)
        if shard is not None:
            changes = template_changes(outline, shard.there)
            if changes:
                refusal = refusal or one_shard_at_a_time(shard, busy)
                refusal = refusal or every_slot_stays_covered(shard)
            goes = changes and refusal is None
            if goes:
                busy.append(outline.key)
            replicas[outline.key], why = _replicas(shard, goes=goes)
            kept |= {} if why is None else {outline.key: why}
        if refusal is not None:
            held[outline.key] = refusal
    return Course(held, replicas, kept)


def template_changes(outline: Outline, there: Child) -> bool:
    """Return whether an apply of the outline gives its pods another template."""
    if there.applied == outline.applied:
        return False
    if there.template:
        return there.template != outline.template
    # Applied by an operator that did not note the template: known is only the whole.
    return there.applied != outline.applied_unmarked


def runs_as_told(there: Child, wanted: int) -> bool:
    """Return whether a workload runs what it was told, with so many replicas, all ready."""
    counts = {there.replicas, there.current, there.updated, there.ready}
    return there.observed_generation >= there.generation and counts == {wanted}


def one_shard_at_a_time(shard: Shard, busy: Sequence[ChildKey]) -> Refusal | None:
    """Refuse a new template while another shard is not at rest.

    One whose pods are being replaced already goes on, and one without a ready pod may go.
    """
    others = [key for key in busy if key != shard.outline.key]
    if not others or not shard.serves or shard.replacing:
        return None
    return Refusal(
        "one_shard_at_a_time",
        Reason.ROLLING_OUT,
        f"{shard.name} gets its new template when {' '.join(others[0])} is ready with all its pods",
    )


def every_slot_stays_covered(shard: Shard) -> Refusal | None:
    """Refuse a new template where the pod that goes first is the only one that answers.

    A shard of one pod gets a second one in the same pass, so its pod is never the first to go.
    Where all pods are ready in the middle of a roll-out, the controller is about to end another.
    """
    last = max(shard.running, shard.wanted, _SURGE) - 1
    waits = not shard.replacing or shard.there.ready < shard.running
    lower = any(ordinal < last for ordinal in shard.ready)
    if not shard.serves or (shard.seen and waits and lower):
        return None
    return Refusal(
        "every_slot_stays_covered",
        Reason.ROLLING_OUT,
        f"{shard.name} gets its new template when another of its pods than the last is ready: "
        f"{shard.there.ready} of {shard.running} are",
    )


def _stays_covered_with_fewer(shard: Shard) -> Refusal | None:
    """Refuse to take pods away before those that stay run the template and one is ready."""
    lasting = any(ordinal < shard.wanted for ordinal in shard.ready)
    if not shard.serves or (lasting and not shard.rolling):
        return None
    return Refusal(
        "every_slot_stays_covered",
        Reason.ROLLING_OUT,
        f"{shard.name} keeps {shard.running} pods until those that stay are ready with its "
        f"current template: {shard.there.updated} of {shard.there.current} run it",
    )


def earlier_rank_rolled_out(
    outline: Outline, children: Sequence[Outline], observed: Observed
) -> Refusal | None:
    """Refuse another version while a tier before this one does not run it with all its pods."""
    there = observed.children.get(outline.key)
    if there is None or outline.replicas is None or there.version == outline.version:
        return None
    for before in children:
        if not Rank.MIGRATION <= before.rank < outline.rank or _is_done(before, observed):
            continue
        return Refusal(
            "earlier_rank_rolled_out",
            Reason.ROLLING_OUT,
            f"{' '.join(outline.key)} stays at version {there.version} until "
            f"{' '.join(before.key)} is done with {outline.version}",
        )
    return None


def _is_done(outline: Outline, observed: Observed) -> bool:
    there = observed.children.get(outline.key)
    if outline.once:
        return there is not None and there.succeeded > 0
    if outline.replicas is None:
        return True
    current = there is not None and there.applied == outline.applied and not there.deleting
    return current and there is not None and runs_as_told(there, outline.replicas)


def _refusal_of_order(
    outline: Outline, children: Sequence[Outline], observed: Observed
) -> Refusal | None:
    if outline.rank is Rank.MIGRATION:
        return database_reachable_before_migration(outline, children, observed)
    if outline.rank > Rank.MIGRATION:
        return earlier_rank_rolled_out(outline, children, observed)
    return None


def database_reachable_before_migration(
    job: Outline, children: Sequence[Outline], observed: Observed
) -> Refusal | None:
    """Refuse to migrate an object that ran before while its database is known to be away.

    The Job tries for about an hour and has then failed for good. It waits by itself where the
    object is new, and nobody needs to tell that the database answers: it finds out.
    """
    if job.key in observed.children:
        return None
    later = [one for one in children if one.rank > Rank.MIGRATION and one.replicas is not None]
    if not any(one.key in observed.children for one in later):
        return None
    told = observed.runtime.value
    why = "the API pods get no answer from it" if told and told.database == "unavailable" else ""
    for one in children:
        database = observed.children.get(one.key)
        if one.rank is Rank.DATABASE and one.replicas is not None:
            why = "" if database is not None and database.ready else f"{one.key[1]}-0 is not ready"
    if not why:
        return None
    return Refusal(
        "database_reachable_before_migration",
        Reason.WAITING_FOR_DATABASE,
        f"Job {job.key[1]} waits for the database: {why}",
    )


def shard_still_owns_slots(there: Child, observed: Observed, now_s: float) -> Refusal | None:
    """Refuse to delete what belongs to a shard that owns slots, or of which nobody tells."""
    index = shard_index(there.component)
    if index is None or there.kind not in {"StatefulSet", "Service"}:
        return None
    told = observed.runtime.value
    what = f"{there.kind} {there.name}"
    if told is None or not told.owned_slots or not observed.runtime.fresh(now_s, STATUS_MAX_AGE_S):
        return Refusal(
            "shard_still_owns_slots",
            Reason.STATUS_UNKNOWN,
            f"{what} stays: no API pod tells which shard owns which slots",
        )
    slots = told.owned_slots[index] if index < len(told.owned_slots) else 0
    if not slots:
        return None
    return Refusal(
        "shard_still_owns_slots",
        Reason.WAITING_FOR_SLOTS,
        f"{what} stays while its shard owns {slots} slots",
    )


def shard_index(component: str) -> int | None:
    """Return the number of the shard that a component label speaks of, None for another tier."""
    number = component.removeprefix(_SHARD_PREFIX)
    return int(number) if number != component and number.isdecimal() else None


def _shards(observed: Observed, children: Sequence[Outline]) -> dict[ChildKey, Shard]:
    found: dict[ChildKey, Shard] = {}
    for outline in children:
        there = observed.children.get(outline.key)
        if there is None or outline.replicas is None or shard_index(outline.component) is None:
            continue
        ending = sum(one.deleting for one in observed.pods if one.component == outline.component)
        ready = _ready(outline.component, there, observed, ending=ending)
        found[outline.key] = Shard(outline, there, ready, ending)
    return found


def _ready(component: str, there: Child, observed: Observed, *, ending: int) -> frozenset[int]:
    """Return the ordinals of the ready pods; where all are and none ends, the counts tell it."""
    running = there.replicas or 0
    if there.ready >= running and there.observed_generation >= there.generation and not ending:
        return frozenset(range(running))
    names = [
        pod.name
        for pod in observed.pods
        if pod.component == component and pod.ready and not pod.deleting
    ]
    ordinals = (name.rpartition("-")[2] for name in names)
    return frozenset(int(ordinal) for ordinal in ordinals if ordinal.isdecimal())


def _replicas(shard: Shard, *, goes: bool) -> tuple[int, Refusal | None]:
    """Return how many pods a shard has now, and why these are more than the spec says."""
    if goes and shard.serves:
        return max(shard.running, shard.wanted, _SURGE), None
    why = _stays_covered_with_fewer(shard) if shard.running > shard.wanted else None
    return (shard.wanted, None) if why is None else (shard.running, why)
