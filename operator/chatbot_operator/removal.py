"""How an object ends that left something outside of Kubernetes. Pure.

The tiers go first, so that nobody writes any more; then a Job erases; then our finalizer is
released and the garbage collector does the rest. Without the finalizer there is nothing to do.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

from chatbot_core import names
from chatbot_core.names import Component
from chatbot_core.reasons import Reason
from chatbot_operator import progress, safety
from chatbot_operator.desired import erase
from chatbot_operator.desired.context import Context, Rank
from chatbot_operator.model import (
    Child,
    ChildKey,
    Delete,
    Observed,
    Owner,
    Pod,
    Refusal,
    SetFinalizer,
)
from chatbot_operator.progress import Finding

#: From the deletion on; then the condition and its Event name what is left.
DEADLINE_S: Final = 7200.0
#: What the garbage collector holds an object with while it orphans the children.
ORPHAN: Final = "orphan"

GOING: Final = "Going"
ERASED: Final = "Erased"
KEPT: Final = "Kept"
LEFT_BEHIND: Final = "LeftBehind"
PROMISED: Final = "Promised"

_WORKLOADS: Final = frozenset({"Deployment", "StatefulSet", "Job"})
#: Whose pods write, in the order in which they go.
_WRITERS: Final = (
    Component.API,
    Component.INGEST,
    Component.INFERENCE,
    Component.SHARD,
    Component.MIGRATE,
)


@dataclass(frozen=True, slots=True)
class End:
    """The next step towards the end.

    `needs` are the children that must be there for it; `release` is None as long as `finding`
    says what is waited for; `keeps_data`: claims and their Secrets lose their owner before.
    """

    finding: Finding
    deletes: tuple[Delete, ...] = ()
    needs: frozenset[ChildKey] = frozenset()
    release: SetFinalizer | None = None
    keeps_data: bool = False


def holds(owner: Owner) -> bool:
    """Return whether our finalizer holds the object."""
    return names.FINALIZER in owner.finalizers


def finalizer_steps(ctx: Context, owner: Owner) -> tuple[SetFinalizer, ...]:
    """Return the step that makes the finalizer of a living object what its spec asks for.

    It is set before there is any process that could write outside.
    """
    needed = erase.is_needed(ctx)
    if needed == holds(owner):
        return ()
    if needed:
        return (SetFinalizer(Rank.CONFIG, owner.name, present=True, reason=PROMISED),)
    return (SetFinalizer(Rank.PRUNE, owner.name, present=False, reason=KEPT),)


def end(
    ctx: Context, observed: Observed, secret_refusals: Mapping[str, Refusal], now_s: float
) -> End:
    """Return what to do now about an object that is being deleted and held by our finalizer."""
    what = erase.targets(ctx)
    if _is_orphaned(observed):
        return _release(observed, LEFT_BEHIND, f"children were orphaned; nothing erased: {what}")
    if not erase.is_needed(ctx):
        return _release(observed, KEPT, "the spec keeps the data", keeps_data=True)
    if any(one.reason is Reason.NAMESPACE_TERMINATING for one in observed.refused.values()):
        note = f"namespace {ctx.namespace} ends and lets no Job start; left behind: {what}"
        return _release(observed, LEFT_BEHIND, note)
    job = observed.children.get(("Job", names.child(ctx.cluster, Component.ERASE)))
    if job is not None and job.succeeded and job.owner_uid == ctx.uid:
        return _release(observed, ERASED, what)
    writers = [one for one in observed.children.values() if _writes(one, observed.owner)]
    pods = [one for one in observed.pods if _rank(one.component) is not None]
    if writers or pods:
        now = _draining(observed, writers, pods)
    else:
        now = _erasing(ctx, observed, job, [*secret_refusals.values()], now_s)
    if wait_s(observed.owner, now_s) is not None or now.finding.reason is Reason.ERASE_FAILED:
        return now
    message = f"not erased within {DEADLINE_S:.0f} s: {what}; {now.finding.message}"
    return replace(now, finding=Finding(Reason.ERASE_OVERDUE, message))


def wait_s(owner: Owner, now_s: float) -> float | None:
    """Return in how many seconds the deadline is over, None where it is."""
    left_s = owner.deleting_since_s + DEADLINE_S - now_s
    return left_s if left_s > 0 else None


def _is_orphaned(observed: Observed) -> bool:
    """Whether somebody asked to keep the children running; then their data are in use."""
    return ORPHAN in observed.owner.finalizers or any(
        one.kind in _WORKLOADS and not one.owner_uid and one.managed is not None
        for one in observed.children.values()
    )


def _release(observed: Observed, reason: str, note: str, *, keeps_data: bool = False) -> End:
    step = SetFinalizer(Rank.PRUNE, observed.owner.name, present=False, reason=reason, note=note)
    return End(Finding(Reason.ERASING, note), release=step, keeps_data=keeps_data)


def _rank(component: str) -> int | None:
    """Return when the pods of a component go, None where they write nothing outside."""
    tier = component.partition("-")[0]
    return _WRITERS.index(Component(tier)) if tier in _WRITERS else None


def _writes(child: Child, owner: Owner) -> bool:
    component = child.labels.get(names.LABEL_COMPONENT, "")
    ours = child.kind in _WORKLOADS and child.owner_uid == owner.uid
    return ours and _rank(component) is not None


def _draining(observed: Observed, writers: list[Child], pods: list[Pod]) -> End:
    ordered = sorted(
        writers, key=lambda one: (_rank(one.labels[names.LABEL_COMPONENT]) or 0, one.key)
    )
    held = safety.cache_is_settled(observed)
    deletes = tuple(
        Delete(Rank.PRUNE, one.kind, one.name, one.uid, GOING)
        for one in ordered
        if held is None and not one.deleting
    )
    still = [f"pod {one.name}" for one in pods] or [f"{one.kind} {one.name}" for one in ordered]
    message = f"waiting for the end of what writes: {progress.some(still)}"
    return End(Finding(Reason.DRAINING, message), deletes)


def _erasing(
    ctx: Context, observed: Observed, job: Child | None, refusals: list[Refusal], now_s: float
) -> End:
    name = names.child(ctx.cluster, Component.ERASE)
    needs = frozenset(
        {
            ("ServiceAccount", names.service_account(ctx.cluster)),
            ("ConfigMap", names.config_map(ctx.cluster)),
            ("Job", name),
        }
    )
    what = erase.targets(ctx)
    pods = [one for one in observed.pods if one.component == Component.ERASE]
    foreign = safety.foreign_object_not_ours(job, observed.owner) if job else None
    if foreign is not None:
        return End(Finding(foreign.reason, foreign.message), needs=needs)
    if job is not None and job.job_failed:
        said = next((one.message.strip() for one in pods if one.message), "read its log")
        message = f"Job {name}: {said.splitlines()[-1]}; delete it to try again; left: {what}"
        return End(Finding(Reason.ERASE_FAILED, message), needs=needs)
    held = [
        *(Finding(one.reason, one.message) for one in (*observed.refused.values(), *refusals)),
        *(found for pod in pods for found in [progress.trouble(pod, now_s)] if found),
    ]
    running = Finding(Reason.ERASING, f"Job {name} erases {what}")
    return End(next(iter(held), running), needs=needs)
