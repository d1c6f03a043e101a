"""How far each tier is: PURE findings from children, pods, Secrets and RuntimeStatus.

A finding that time cures makes `Reconciling`, one that it does not makes `Stalled`. Findings that
do not block are shown, but leave `Ready` as it is: a tier that serves and scales stays ready.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Final

from chatbot_core.names import Component, Role
from chatbot_core.reasons import STALLING, ConditionType, Reason
from chatbot_core.runtime_config import Member, RuntimeStatus
from chatbot_operator import rollout, safety
from chatbot_operator.desired.config import told_as
from chatbot_operator.desired.context import Context
from chatbot_operator.desired.secrets import mounts
from chatbot_operator.desired.target import Outline
from chatbot_operator.model import Child, ChildKey, Observed, Pod, Refusal

_IMAGE_REASONS: Final = frozenset(
    {"ImagePullBackOff", "ErrImagePull", "InvalidImageName", "ErrImageNeverPull"}
)
#: A process that ends once or twice while its neighbours start is no news.
CRASHES: Final = 3
#: A pod that finds no room at once may find it when a node joins or a former pod is gone.
ROOM_GRACE_S: Final = 60.0
#: One pod more than a tier needs may wait longer: its neighbours serve meanwhile.
SURGE_GRACE_S: Final = 300.0
#: A heartbeat comes every 2 s; a row this old speaks of a process that is gone.
MEMBER_MAX_AGE_S: Final = 15.0
_PERCENT: Final = 100

DATABASE: Final = "database"
DOCUMENTS: Final = "documents"
RETRIEVAL: Final = "retrieval"
INFERENCE: Final = "inference"
INGEST: Final = "ingest"
API: Final = "api"
#: Order of the tiers in the status, and the condition that speaks of each.
TIERS: Final[dict[str, ConditionType | None]] = {
    DOCUMENTS: ConditionType.STORAGE_READY,
    DATABASE: ConditionType.DATABASE_READY,
    RETRIEVAL: ConditionType.RETRIEVAL_READY,
    INFERENCE: ConditionType.INFERENCE_READY,
    INGEST: None,
    API: ConditionType.API_READY,
}


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is not as it shall be; `blocks` = the tier is not ready because of it."""

    reason: Reason
    message: str
    blocks: bool = True

    @property
    def stalls(self) -> bool:
        """Return whether time alone does not cure it."""
        return self.reason in STALLING


@dataclass(frozen=True, slots=True)
class Picture:
    """What the status is made from: the facts, the children as they shall be, and what was held.

    `refusals` holds what blocked a child, `secret_refusals` what blocked the pods of a Secret,
    `no_step` what keeps the release that runs, `suspended` what holds back every write, None where
    no write waits. `acknowledged` maps a role to the hash that its processes shall report.
    """

    observed: Observed
    now_s: float
    ctx: Context
    children: tuple[Outline, ...]
    refusals: Mapping[ChildKey, Refusal]
    secret_refusals: Mapping[str, Refusal]
    no_step: Refusal | None
    acknowledged: Mapping[str, str]
    self_test: str
    suspended: Refusal | None = None

    @property
    def runtime(self) -> RuntimeStatus | None:
        """Return what an API pod said last, however old; None = nobody has said anything."""
        return self.observed.runtime.value


@lru_cache(maxsize=1024)
def tier_of(component: str) -> str | None:
    """Return the tier that a component label belongs to, None for what all tiers share."""
    if component in (Component.DATABASE, Component.MIGRATE):
        return DATABASE
    if component.startswith(f"{Component.STORE.value}-"):
        return DOCUMENTS
    if component.startswith(f"{Component.SHARD.value}-"):
        return RETRIEVAL
    if component.startswith(f"{Component.INFERENCE.value}-"):
        return INFERENCE
    return component if component in TIERS else None


def _tier(child: Outline) -> str | None:
    return DOCUMENTS if child.storage else tier_of(child.component)


def workloads(picture: Picture, tier: str) -> Iterator[tuple[Outline, Child | None]]:
    """Yield the replicated children of a tier, with what is there of each."""
    for child in picture.children:
        if child.replicas is not None and _tier(child) == tier:
            yield child, picture.observed.children.get(child.key)


def replica_counts(picture: Picture, tier: str) -> tuple[int, int]:
    """Return (ready, desired) replicas of a tier."""
    pairs = list(workloads(picture, tier))
    ready = sum(there.ready for _, there in pairs if there is not None)
    return ready, sum(child.replicas or 0 for child, _ in pairs)


def findings(picture: Picture, tier: str, *, was_ready: bool) -> list[Finding]:
    """Return everything that is not as it shall be in a tier, the weightiest first."""
    found = [*_refused(picture, tier), *_secrets(picture, tier), *_claims(picture, tier)]
    pairs = list(workloads(picture, tier))
    # Any inference workload takes any question; each of the others has a part of its own.
    tier_serves = tier == INFERENCE and any(there and there.ready for _, there in pairs)
    lagging = [
        one
        for child, there in pairs
        for one in _lag(
            child, there, serves=was_ready and (tier_serves or bool(there and there.ready))
        )
    ]
    if lagging:
        blocks = any(one.blocks for one in lagging)
        found += [replace(one, blocks=blocks) for one in pod_troubles(picture, tier)]
    if tier == INFERENCE and lagging:
        found += _model(picture.runtime, lagging[0])
        found += _endpoints(picture, lagging[0])
    found += lagging
    if tier == DATABASE:
        found += _schema(picture)
    return sorted(found, key=lambda one: (not one.blocks, not one.stalls))


def shared(picture: Picture) -> list[Finding]:
    """Return what holds back the children that no tier owns, and changes not written yet."""
    found = list(_refused(picture, None))
    if picture.no_step is not None:
        found.append(Finding(picture.no_step.reason, picture.no_step.message))
    for child in picture.children:
        there = picture.observed.children.get(child.key)
        if there is None or child.once or child.key in picture.refusals:
            continue
        if there.applied != child.applied:
            message = f"{there.kind} {there.name} is being changed"
            found.append(Finding(Reason.ROLLING_OUT, message, blocks=False))
    return [*found, *_unlisted(picture)]


def _unlisted(picture: Picture) -> Iterator[Finding]:
    """Yield the stores that documents were put in while they were taken off the spec."""
    listed = {one.name for one in picture.ctx.spec.documents.stores}
    stored = (picture.runtime.stored if picture.runtime else None) or {}
    for name, count in sorted(stored.items()):
        if count and name not in listed:
            message = f"store {name} holds {count} documents and spec.documents.stores lacks it: "
            yield Finding(Reason.STORE_HOLDS_DOCUMENTS, f"{message}list it again", blocks=False)


def _refused(picture: Picture, tier: str | None) -> Iterator[Finding]:
    tiers = {child.key: _tier(child) for child in picture.children}
    for key, refusal in picture.refusals.items():
        there = picture.observed.children.get(key)
        if refusal.reason is Reason.WRITE_REFUSED and there is not None and there.requested:
            if tier == DOCUMENTS:
                yield Finding(Reason.VOLUME_CANNOT_GROW, refusal.message, blocks=False)
        elif refusal.reason is not Reason.STATUS_UNKNOWN and tiers.get(key) == tier:
            # What is no longer wanted and stays for a while makes nothing less ready.
            yield Finding(refusal.reason, refusal.message, blocks=key in tiers)


def _secrets(picture: Picture, tier: str) -> Iterator[Finding]:
    role = {DATABASE: Role.MIGRATE, DOCUMENTS: Role.INGEST, API: Role.API}.get(tier)
    if role is not None:
        used = {mount.secret for mount in mounts(picture.ctx, role)}
    elif tier == INFERENCE:
        used = {name for child, _ in workloads(picture, tier) for name in child.secrets}
    else:
        return
    if tier != DATABASE:
        used -= {mount.secret for mount in mounts(picture.ctx, Role.MIGRATE)}
    for name in sorted(used):
        refusal = picture.secret_refusals.get(name)
        if refusal is not None:
            yield Finding(refusal.reason, refusal.message)


def _claims(picture: Picture, tier: str) -> Iterator[Finding]:
    if tier != DOCUMENTS:
        return
    for child in picture.children:
        kind, name = child.key
        if kind != "PersistentVolumeClaim" or child.key in picture.refusals:
            continue
        there = picture.observed.children.get(child.key)
        phase = "not there" if there is None else there.phase or "Pending"
        if there is not None and there.deleting:
            phase = "being deleted"
        if phase != "Bound":
            yield Finding(Reason.WAITING_FOR_VOLUME, f"claim {name} is {phase}")
        elif there is not None and safety.is_more(there.requested, there.capacity):
            yield _growing(there)


def _growing(claim: Child) -> Finding:
    """Return how far a claim is that asks for more than it has; who mounts it serves on."""
    reason = Reason.VOLUME_CANNOT_GROW if claim.resize_failed else Reason.WAITING_FOR_VOLUME
    why = claim.resize or "its driver has not begun"
    message = f"claim {claim.name} has {claim.capacity}, {claim.requested} are asked for: {why}"
    return Finding(reason, message, blocks=False)


def _lag(child: Outline, there: Child | None, *, serves: bool) -> Iterator[Finding]:
    """Yield how a workload lags behind; where the tier `serves`, only a roll-out blocks it."""
    kind, name = child.key
    wanted = child.replicas or 0
    if there is None:
        yield Finding(Reason.WAITING_FOR_PODS, f"{kind} {name} is not there yet")
        return
    if there.pods_refused and there.ready < wanted:
        message = f"{kind} {name}: {there.pods_refused}"
        yield Finding(Reason.PODS_REFUSED, message, blocks=not serves)
    changing = rollout.template_changes(child, there)
    unseen = there.observed_generation < there.generation
    if changing or there.current > there.updated:
        done = 0 if changing else there.updated
        message = f"{kind} {name}: {done} of {wanted} pods run the current template"
        yield Finding(Reason.ROLLING_OUT, message)
    elif unseen or there.ready < wanted or there.replicas != wanted:
        message = f"{kind} {name}: {there.ready} of {wanted} pods are ready"
        yield Finding(Reason.WAITING_FOR_PODS, message, blocks=not serves)


def is_rolled_out(child: Outline, there: Child | None) -> bool:
    """Return whether every replica of a workload is ready and runs its current template."""
    return not any(_lag(child, there, serves=False))


def pod_troubles(picture: Picture, tier: str) -> Iterator[Finding]:
    """Yield what the pods of a tier say about why they are not ready."""
    complete = {
        child.component
        for child, there in workloads(picture, tier)
        if there is not None and there.ready >= (child.replicas or 0)
    }
    for pod in picture.observed.pods:
        if pod.ready or pod.deleting or tier_of(pod.component) != tier:
            continue
        found = trouble(pod, picture.now_s, surge=pod.component in complete)
        if found is not None:
            yield found


def room_waits_s(pods: Iterable[Pod], now_s: float) -> Iterator[float]:
    """Yield in how many seconds pods without room may count as stalled; 0 = they do."""
    for pod in pods:
        if pod.unschedulable:
            yield from (_room_wait_s(pod, now_s, grace) for grace in (ROOM_GRACE_S, SURGE_GRACE_S))


def _room_wait_s(pod: Pod, now_s: float, grace_s: float) -> float:
    return max(0.0, pod.unschedulable_since_s + grace_s - now_s)


def _no_room(pod: Pod, now_s: float, *, surge: bool) -> Reason:
    # A claim that is still being bound says the same as a full cluster does.
    if "PersistentVolumeClaim" in pod.unschedulable:
        return Reason.WAITING_FOR_VOLUME
    if _room_wait_s(pod, now_s, SURGE_GRACE_S if surge else ROOM_GRACE_S) > 0:
        return Reason.WAITING_FOR_PODS
    return Reason.NO_ROOM_FOR_SURGE if surge else Reason.POD_UNSCHEDULABLE


def trouble(pod: Pod, now_s: float, *, surge: bool = False) -> Finding | None:
    """Return why a pod is not ready, None where it says nothing.

    `surge`: its tier has all the ready pods that it needs, this one is for a roll-out.
    """
    message = f"pod {pod.name}: {pod.waiting_reason}: {pod.message}".removesuffix(": ")
    if pod.waiting_reason in _IMAGE_REASONS:
        return Finding(Reason.IMAGE_NOT_PULLABLE, message)
    if pod.unschedulable:
        reason = _no_room(pod, now_s, surge=surge)
        return Finding(reason, f"pod {pod.name}: {pod.unschedulable}")
    if pod.waiting_reason == "CrashLoopBackOff" and pod.restarts >= CRASHES:
        return Finding(Reason.POD_CRASHING, message)
    if pod.waiting_reason:
        return Finding(Reason.WAITING_FOR_PODS, message)
    return None


def _model(runtime: RuntimeStatus | None, lagging: Finding) -> Iterator[Finding]:
    if runtime is None or runtime.model.loaded or not runtime.model.total_bytes:
        return
    done = _PERCENT * runtime.model.downloaded_bytes // runtime.model.total_bytes
    message = f"model {runtime.model.name}: {done} % are downloaded"
    yield Finding(Reason.WAITING_FOR_MODEL, message, lagging.blocks)


def _endpoints(picture: Picture, lagging: Finding) -> Iterator[Finding]:
    """Yield what the proxies before external endpoints say about why they are not ready."""
    heard = [one for one in _alive(picture.runtime) if one.role == Role.INFERENCE_PROXY]
    for endpoint in picture.ctx.spec.inference.endpoints:
        of_it = [one for one in heard if one.endpoint == endpoint.name]
        if of_it and not any(one.ready for one in of_it):
            message = f"endpoint {endpoint.name}: {of_it[0].reason}"
            yield Finding(Reason.WAITING_FOR_ENDPOINT, message, lagging.blocks)


def _alive(runtime: RuntimeStatus | None) -> list[Member]:
    members = runtime.members if runtime is not None else ()
    return [one for one in members if one.age_s <= MEMBER_MAX_AGE_S]


def _schema(picture: Picture) -> Iterator[Finding]:
    job = next(child for child in picture.children if child.once)
    there = picture.observed.children.get(job.key)
    name = job.key[1]
    if there is not None and there.job_failed:
        troubles = (p.message for p in picture.observed.pods if p.component == Component.MIGRATE)
        why = next((message for message in troubles if message), "read its log")
        yield Finding(Reason.MIGRATION_FAILED, f"Job {name}: {why}; delete it to try again")
    elif there is None or there.succeeded == 0:
        yield Finding(Reason.WAITING_FOR_MIGRATION, f"Job {name} has not completed yet")
    elif picture.runtime is not None and picture.runtime.database == "unavailable":
        message = "the API pods get no answer from the database"
        yield Finding(Reason.WAITING_FOR_DATABASE, message)
    elif picture.runtime is not None and picture.runtime.database == "unmigrated":
        yield Finding(Reason.WAITING_FOR_MIGRATION, "the database does not hold the schema")


def configuration(picture: Picture, *, was_ready: bool, same_generation: bool) -> list[Finding]:
    """Return which processes do not run the current document yet."""
    runtime = picture.runtime
    if runtime is None:
        if was_ready and same_generation:
            return []
        message = "no API pod has told yet which configuration runs"
        return [Finding(Reason.STATUS_UNKNOWN, message)]
    alive = _alive(runtime)
    late = sorted(
        one.name
        for one in alive
        if one.config_hash
        != picture.acknowledged.get(told_as(one.role, one.endpoint), one.config_hash)
    )
    if late:
        message = f"{len(late)} of {len(alive)} run a former configuration: {some(late)}"
        return [Finding(Reason.WAITING_FOR_CONFIG, message)]
    present = {told_as(one.role, one.endpoint) for one in alive} | {
        f"{one.role} {one.shard}" for one in alive if one.role == Role.SHARD
    }
    shards = range(picture.ctx.spec.retrieval.shards)
    expected = [*picture.acknowledged, *(f"{Role.SHARD.value} {i}" for i in shards)]
    silent = [who for who in expected if who not in present]
    if not silent:
        return []
    message = f"no process has reported yet as {some(silent)}"
    return [Finding(Reason.WAITING_FOR_CONFIG, message, blocks=not was_ready)]


def some(words: Iterable[str], most: int = 3) -> str:
    """Return the first words of a list, and how many more there are."""
    listed = list(words)
    rest = len(listed) - most
    return ", ".join(listed[:most]) + (f" and {rest} more" if rest > 0 else "")
