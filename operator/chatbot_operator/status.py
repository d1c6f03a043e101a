"""Conditions and the status document: PURE functions of a `Picture`, the old status and the time.

kstatus holds at every moment: `Ready=False` always has `Reconciling` or `Stalled` beside it, the
two never stand together, and both exist only while True.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Final

from chatbot_core import names
from chatbot_core.names import Component
from chatbot_core.reasons import ConditionType, Reason
from chatbot_core.v1alpha1.status import (
    ChatbotClusterStatus,
    Condition,
    ModelStatus,
    RetrievalStatus,
    Shard,
    Tier,
)
from chatbot_operator import progress
from chatbot_operator.model import Json, Observed, Owner, Refusal
from chatbot_operator.progress import Finding, Picture

#: Least time between two writes that change no condition and no replica count.
QUIET_S: Final = 60.0
#: So many wrong or missing answers in a row end a passed self-test.
FAILURES: Final = 3
_MESSAGE_LENGTH: Final = 1024
_SIGNIFICANT: Final = 2


@dataclass(frozen=True, slots=True)
class Verdict:
    """What one condition says, before time and generation are put on it."""

    type: ConditionType
    status: str
    reason: Reason
    message: str


_SPEC_VALID: Final = Verdict(
    ConditionType.SPEC_VALID, "True", Reason.VALID, "the spec holds no contradiction"
)


def was_true(owner: Owner, kind: ConditionType) -> bool:
    """Return whether the last written status held a condition as True."""
    old = _old_conditions(owner).get(kind.value)
    return old is not None and old.get("status") == "True"


def _old_conditions(owner: Owner) -> dict[str, Json]:
    return {one["type"]: one for one in owner.status.get("conditions", ()) if "type" in one}


def compute(picture: Picture) -> Json:
    """Return the whole status as it shall be written."""
    owner, runtime = picture.observed.owner, picture.runtime
    old_retrieval = RetrievalStatus.model_validate(owner.status.get("retrieval") or {})
    held = {name: value for name, value in old_retrieval if name != "shards"}
    model = ModelStatus.model_validate(owner.status.get("model") or {})
    if runtime is not None:
        held = {name: rounded(value) for name, value in runtime.retrieval}
        held |= {"generation": runtime.retrieval.generation}
        held |= {"slot_map_epoch": runtime.retrieval.slot_map_epoch}
        model = ModelStatus(
            name=runtime.model.name,
            digest=runtime.model.digest,
            downloaded_bytes=rounded(runtime.model.downloaded_bytes),
            total_bytes=rounded(runtime.model.total_bytes),
        )
    status = ChatbotClusterStatus(
        observed_generation=owner.generation,
        conditions=_stamped(owner, verdicts(picture), picture.now_s),
        endpoint=f"http://{picture.ctx.host(names.child(owner.name, Component.API))}",
        version=picture.ctx.choice.version,
        tiers=_tiers(picture),
        retrieval=RetrievalStatus(**held, shards=_shards(picture)),
        model=model,
    )
    return status.model_dump(mode="json", by_alias=True, exclude_none=True)


def refused_spec(owner: Owner, refusal: Refusal, now_s: float) -> Json:
    """Return the status of an object whose spec cannot be followed: the rest stays as it was."""
    found = Finding(refusal.reason, refusal.message)
    kept = [
        Verdict(ConditionType(kind), old["status"], Reason(old["reason"]), old.get("message", ""))
        for kind, old in _old_conditions(owner).items()
        if kind in _TIER_CONDITIONS and old.get("reason") in set(Reason)
    ]
    stated = [
        _of(ConditionType.READY, found),
        _of(ConditionType.SPEC_VALID, found),
        *kept,
        *_course([found]),
    ]
    conditions = [
        one.model_dump(mode="json", by_alias=True) for one in _stamped(owner, stated, now_s)
    ]
    return {**owner.status, "observedGeneration": owner.generation, "conditions": conditions}


def ending(owner: Owner, finding: Finding, now_s: float) -> Json:
    """Return the status of an object that is being deleted and held by our finalizer."""
    going = Finding(Reason.ERASING, "the object is being deleted")
    course = ConditionType.STALLED if finding.stalls else ConditionType.RECONCILING
    stated = [
        _of(ConditionType.READY, finding),
        _SPEC_VALID,
        *(_of(ConditionType(kind), going) for kind in sorted(_TIER_CONDITIONS)),
        Verdict(course, "True", finding.reason, finding.message),
    ]
    conditions = [
        one.model_dump(mode="json", by_alias=True) for one in _stamped(owner, stated, now_s)
    ]
    kept: Json = {key: owner.status[key] for key in ("version", "endpoint") if key in owner.status}
    return {**kept, "observedGeneration": owner.generation, "conditions": conditions}


_TIER_CONDITIONS: Final = frozenset(
    {kind.value for kind in progress.TIERS.values() if kind} | {ConditionType.SELF_TEST_PASSED}
)


def _of(kind: ConditionType, finding: Finding) -> Verdict:
    return Verdict(kind, "False", finding.reason, finding.message)


def verdicts(picture: Picture) -> list[Verdict]:
    """Return every condition, `Ready` first, derived from all the others."""
    owner = picture.observed.owner
    was_ready = was_true(owner, ConditionType.READY)
    same = owner.status.get("observedGeneration") == owner.generation
    found = progress.shared(picture)
    stated = [_SPEC_VALID]
    for tier, kind in progress.TIERS.items():
        before = was_ready if kind is None else was_true(owner, kind)
        of_tier = progress.findings(picture, tier, was_ready=before)
        found += of_tier
        if kind is not None:
            stated.append(_tier_verdict(kind, tier, of_tier))
    found += progress.configuration(picture, was_ready=was_ready, same_generation=same)
    tested = _self_test(picture)
    stated.append(tested)
    if tested.status == "False":
        found.append(Finding(tested.reason, tested.message))
    if picture.suspended is not None:
        found.append(Finding(Reason.SUSPENDED, picture.suspended.message, blocks=False))
    ready = _suspended(_ready(found)) if picture.ctx.spec.suspend else _ready(found)
    return [ready, *stated, *_course(found), *_contested(picture.observed)]


def _suspended(ready: Verdict) -> Verdict:
    """Return `Ready` with its status kept: what runs is left as it is, and that is all it says."""
    message = f"spec.suspend is true, nothing is changed; {ready.message}"
    return replace(ready, reason=Reason.SUSPENDED, message=message)


def _contested(observed: Observed) -> list[Verdict]:
    """Return `ScalingContested` while somebody else scales a child: two hands on one number."""
    if not observed.autoscalers:
        return []
    pairs = [
        f"{one.kind} {one.name} ({one.target_kind} {one.target})" for one in observed.autoscalers
    ]
    message = f"{progress.some(pairs)} scales what belongs to this object: delete it"
    kind = ConditionType.SCALING_CONTESTED
    return [Verdict(kind, "True", Reason.AUTOSCALER_FOUND, message)]


def _tier_verdict(kind: ConditionType, tier: str, found: list[Finding]) -> Verdict:
    blocking = next((one for one in found if one.blocks), None)
    if blocking is not None:
        return _of(kind, blocking)
    return Verdict(kind, "True", Reason.AVAILABLE, f"{tier} is there and answers")


def _ready(found: Iterable[Finding]) -> Verdict:
    blocking = sorted((one for one in found if one.blocks), key=lambda one: not one.stalls)
    if blocking:
        return _of(ConditionType.READY, blocking[0])
    message = "every tier is ready and runs the current configuration"
    return Verdict(ConditionType.READY, "True", Reason.AVAILABLE, message)


def _course(found: list[Finding]) -> list[Verdict]:
    """Return `Stalled` or `Reconciling`, whichever a reader should act on, or neither."""
    if not found:
        return []
    ordered = sorted(found, key=lambda one: (not one.stalls, not one.blocks))
    first = ordered[0]
    kind = ConditionType.STALLED if first.stalls else ConditionType.RECONCILING
    return [Verdict(kind, "True", first.reason, first.message)]


def _self_test(picture: Picture) -> Verdict:
    """Return `SelfTestPassed`; it latches for the combination that its message names."""
    kind, wanted = ConditionType.SELF_TEST_PASSED, picture.self_test
    if not wanted:
        message = "spec.selfTest is Disabled"
        return Verdict(kind, "Unknown", Reason.SELF_TEST_DISABLED, message)
    owner, runtime = picture.observed.owner, picture.runtime
    passed = Verdict(kind, "True", Reason.SELF_TEST_PASSED, f"{wanted} was answered and cited")
    old = _old_conditions(owner).get(kind.value, {})
    latched = old.get("status") == "True" and old.get("message") == passed.message
    result = runtime.self_test if runtime is not None else None
    if result is None or result.wanted != wanted:
        waiting = Verdict(
            kind, "False", Reason.WAITING_FOR_SELF_TEST, f"{wanted} has not been tried yet"
        )
        return passed if result is None and latched else waiting
    if result.consecutive_failures >= FAILURES:
        message = f"{result.consecutive_failures} times in a row: {result.message}"
        return Verdict(kind, "False", Reason.SELF_TEST_FAILED, message)
    if result.passed or latched:
        return passed
    message = f"{wanted} has not passed yet: {result.message}"
    return Verdict(kind, "False", Reason.WAITING_FOR_SELF_TEST, message)


def _stamped(owner: Owner, stated: list[Verdict], now_s: float) -> tuple[Condition, ...]:
    """Return the conditions with generation, and the time at which each status last changed."""
    now = datetime.fromtimestamp(now_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    old = _old_conditions(owner)

    def since(verdict: Verdict) -> str:
        before = old.get(verdict.type.value, {})
        same = before.get("status") == verdict.status
        return str(before.get("lastTransitionTime") or now) if same else now

    return tuple(
        Condition.model_validate(
            {
                "type": one.type.value,
                "status": one.status,
                "reason": one.reason.value,
                "message": one.message[:_MESSAGE_LENGTH],
                "observedGeneration": owner.generation,
                "lastTransitionTime": since(one),
            }
        )
        for one in stated
    )


def _tiers(picture: Picture) -> tuple[Tier, ...]:
    found = []
    for tier in progress.TIERS:
        ready, desired = progress.replica_counts(picture, tier)
        if desired:
            found.append(Tier(name=tier, ready_replicas=ready, desired_replicas=desired))
    return tuple(found)


def _shards(picture: Picture) -> tuple[Shard, ...]:
    return tuple(
        Shard(name=child.key[1], ready_replicas=there.ready if there else 0)
        for child, there in progress.workloads(picture, progress.RETRIEVAL)
    )


def rounded(count: int) -> int:
    """Return a count with two significant digits: exact values are metrics, not status."""
    surplus = len(str(abs(count))) - _SIGNIFICANT
    return count if surplus <= 0 else round(count, -surplus)


def _ordered(status: Json) -> Json:
    """Return the status with its list maps by key: the API server keeps an order of its own."""
    conditions = sorted(status.get("conditions", ()), key=lambda one: one.get("type", ""))
    tiers = sorted(status.get("tiers", ()), key=lambda one: one.get("name", ""))
    return {**status, "conditions": conditions, "tiers": tiers}


def _weighty(status: Json) -> Any:
    """Return what of an ordered status is worth a write at once."""
    conditions = [
        (one.get("type"), one.get("status"), one.get("reason"), one.get("observedGeneration"))
        for one in status["conditions"]
    ]
    shards = (status.get("retrieval") or {}).get("shards")
    rest = [status.get(key) for key in ("observedGeneration", "endpoint", "version", "tiers")]
    return conditions, shards, rest


def due(old: Json, new: Json, written_at_s: float | None, now_s: float) -> float | None:
    """Return in how many seconds the new status shall be written: 0 now, None never."""
    old, new = _ordered(old), _ordered(new)
    if old == new:
        return None
    if written_at_s is None or _weighty(old) != _weighty(new):
        return 0.0
    return max(0.0, written_at_s + QUIET_S - now_s)
