"""The decision of one pass: `plan(observed, now_s)`, pure and deterministic.

Only what differs becomes a step. A predicate that holds blocks its step and fills a condition
with the same value; a fact that nobody has looked up yet holds the step and leaves the status.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from itertools import chain
from typing import Final

from chatbot_core import names
from chatbot_core.names import Component, Role
from chatbot_core.reasons import Reason
from chatbot_operator import drift, progress, removal, rollout, safety, status, upgrade
from chatbot_operator.desired import secrets, target
from chatbot_operator.desired.context import Rank
from chatbot_operator.desired.target import Outline, Target
from chatbot_operator.model import (
    Apply,
    Child,
    ChildKey,
    CreateSecret,
    Delete,
    Fact,
    Json,
    Observed,
    Owner,
    Plan,
    Refusal,
    Scale,
    Secret,
    Step,
    WantedSecret,
)
from chatbot_operator.progress import INFERENCE, Picture

CREATED: Final = "Created"
CHANGED: Final = "Changed"
HEALED: Final = "Healed"
TAKEN_OVER: Final = "TakenOver"
SCALED: Final = "Scaled"
NOT_WANTED: Final = "NotWanted"

#: What is deleted when the spec no longer asks for it; data and its keys never are.
PRUNED: Final = frozenset(
    {
        "Deployment",
        "StatefulSet",
        "Service",
        "Job",
        "ConfigMap",
        "ServiceAccount",
        "PodDisruptionBudget",
    }
)


def plan(observed: Observed, now_s: float) -> Plan:
    """Return what to do now about one object.

    An object that is being deleted, or whose children were not all listed yet, gets no step and
    no status: the garbage collector does the one, the next pass the other. An object that our
    finalizer holds is brought to its end first.
    """
    owner = observed.owner
    if not observed.children_complete or (owner.deleting and not removal.holds(owner)):
        return Plan()
    choice, no_step = upgrade.choice(observed, _kept_choices(observed), now_s)
    wanted = target.target(target.origin_of(observed, choice))
    if isinstance(wanted, Refusal):
        return _refused_spec(observed, wanted, now_s)
    other = (_end if owner.deleting else _store_stays)(observed, wanted, now_s)
    if other is not None:
        return other
    secret_refusals = _secret_refusals(observed, wanted)
    secret_steps = _secret_steps(observed, wanted, secret_refusals)
    child_steps, refusals = _child_steps(observed, wanted, secret_refusals)
    deletes, kept = _deletes(observed, wanted, now_s)
    steps = _ranked(removal.finalizer_steps(wanted.ctx, owner), secret_steps, child_steps, deletes)
    suspended = safety.writes_are_allowed(wanted.ctx.spec, steps)
    picture = Picture(
        observed=observed,
        now_s=now_s,
        ctx=wanted.ctx,
        children=wanted.children,
        refusals={**refusals, **kept, **observed.refused},
        secret_refusals=secret_refusals,
        no_step=no_step,
        acknowledged=wanted.acknowledged,
        self_test=wanted.self_test,
        suspended=suspended,
    )
    written, wait_s = _status_of(picture)
    waits_s = [wait_s, *progress.room_waits_s(observed.pods, now_s)]
    return Plan(
        steps=() if suspended else steps,
        refusals=_refusals(picture),
        status=written,
        requeue_after_s=min(filter(None, waits_s), default=None),
        wanted_secrets=_wanted_secrets(wanted.secrets, observed),
    )


def _refused_spec(observed: Observed, refusal: Refusal, now_s: float) -> Plan:
    new = status.refused_spec(observed.owner, refusal, now_s)
    written, wait_s = _status_step(observed, new, now_s)
    return Plan(refusals=(refusal,), status=written, requeue_after_s=wait_s)


def _store_stays(observed: Observed, wanted: Target, now_s: float) -> Plan | None:
    """Return the plan that follows nothing of a spec which lacks a store that is in use."""
    listed = frozenset(one.name for one in wanted.ctx.spec.documents.stores)
    held = safety.store_holds_no_documents(listed, observed, now_s)
    if held is None:
        return None
    # The internal token is wanted still: with it the runtime is asked how many are left.
    asked = _wanted_secrets(wanted.secrets, observed)
    return replace(_refused_spec(observed, held, now_s), wanted_secrets=asked)


def _end(observed: Observed, wanted: Target, now_s: float) -> Plan:
    """Return what to do about an object that is being deleted and held by our finalizer."""
    outside = secrets.keys_of(secrets.mounts(wanted.ctx, Role.ERASE), {})
    secret_refusals = _secret_refusals(observed, replace(wanted, secrets=outside))
    end = removal.end(wanted.ctx, observed, secret_refusals, now_s)
    if end.release is not None:
        kept = end.keeps_data
        return _kept(observed, wanted, end.release) if kept else Plan(steps=(end.release,))
    last = [*wanted.children, *([wanted.erase] if wanted.erase else [])]
    needed = tuple(one for one in last if one.key in end.needs)
    steps, refusals = _child_steps(observed, replace(wanted, children=needed), {})
    new = status.ending(observed.owner, end.finding, now_s)
    written, wait_s = _status_step(observed, new, now_s)
    waits_s = [wait_s, removal.wait_s(observed.owner, now_s)]
    return Plan(
        steps=(*end.deletes, *steps),
        refusals=_distinct([*secret_refusals.values(), *refusals.values()]),
        status=written,
        requeue_after_s=min(filter(None, waits_s), default=None),
        wanted_secrets=_wanted_secrets(outside, observed),
    )


def _kept(observed: Observed, wanted: Target, release: Step) -> Plan:
    """Return the plan that takes the owner off what holds data or opens it, then releases."""
    opening = {one.name: one.keys for one, _ in wanted.generated if one.opens_data}
    asked = _wanted_secrets(opening, observed)
    if not all(_fact(observed, name).known for name in opening):
        return Plan(wanted_secrets=asked)
    refusals = _secret_refusals(observed, replace(wanted, secrets=opening))
    secret_steps = _secret_steps(observed, wanted, refusals)
    there = [one for one in secret_steps if isinstance(one, Apply) and one.uid is not None]
    claims = tuple(one for one in wanted.children if one.storage and one.key in observed.children)
    steps, _ = _child_steps(observed, replace(wanted, children=claims), {})
    return Plan(steps=(*there, *steps, release), wanted_secrets=asked)


def _kept_choices(observed: Observed) -> Iterator[str]:
    """Yield the copies of the choice that are still as we wrote them for this very object."""
    cluster = observed.owner.name
    copies: tuple[tuple[ChildKey, Json], ...] = (
        (("ConfigMap", names.config_map(cluster)), {"data": {names.CHOICE_KEY: ""}}),
        (
            ("ServiceAccount", names.service_account(cluster)),
            {"metadata": {"annotations": {names.ANNOTATION_CHOICE: ""}}},
        ),
    )
    for key, place in copies:
        there = observed.children.get(key)
        # Of a former object of this name nothing is taken over but data.
        if there is None or safety.foreign_object_not_ours(there, observed.owner):
            continue
        if drift.owns_all(place, drift.fields(there.managed)):
            yield there.choice


def _fact(observed: Observed, name: str) -> Fact[Secret]:
    return observed.secrets.get(name) or Fact[Secret].unknown()


def _wanted_secrets(
    wanted: Mapping[str, frozenset[str]], observed: Observed
) -> tuple[WantedSecret, ...]:
    held = {name: fact.value for name, fact in observed.secrets.items() if fact.value}
    return tuple(
        WantedSecret(name, keys, awaited=name not in held or not keys <= held[name].keys)
        for name, keys in sorted(wanted.items())
    )


def _secret_refusals(observed: Observed, wanted: Target) -> dict[str, Refusal]:
    ours = {one.name for one, _ in wanted.generated}
    found: dict[str, Refusal] = {}
    for name, keys in sorted(wanted.secrets.items()):
        fact = _fact(observed, name)
        refusal = safety.secret_is_there(name, keys, fact, ours=name in ours)
        if name in ours and fact.value is not None:
            foreign = safety.foreign_object_not_ours(fact.value.child, observed.owner)
            refusal = foreign or refusal
        if refusal is not None:
            found[name] = refusal
    return found


def _secret_steps(
    observed: Observed, wanted: Target, refusals: Mapping[str, Refusal]
) -> list[Step]:
    steps: list[Step] = []
    for one, metadata in wanted.generated:
        refusal, fact = refusals.get(one.name), _fact(observed, one.name)
        foreign = refusal is not None and refusal.reason is not Reason.SECRET_KEY_MISSING
        if foreign or not fact.known:
            continue
        if fact.value is None:
            new = secrets.new_secret(wanted.ctx, one)
            steps.append(CreateSecret(Rank.CONFIG, new, one.recipe, CREATED))
        there = fact.value.child if fact.value else None
        steps += _apply(metadata, there, observed.owner)
    return steps


def _child_steps(
    observed: Observed, wanted: Target, secret_refusals: Mapping[str, Refusal]
) -> tuple[list[Step], dict[ChildKey, Refusal]]:
    steps: list[Step] = []
    course = rollout.course(observed, wanted.children)
    refusals: dict[ChildKey, Refusal] = {**course.kept, **course.held}
    for child in wanted.children:
        there = observed.children.get(child.key)
        own = _refusal(child, there, observed)
        if own is not None:
            refusals[child.key] = own
        blocked = own is not None or any(name in secret_refusals for name in child.secrets)
        if blocked or (there is not None and there.deleting):
            continue
        if child.key in course.held:
            applies = _found_again(child, there)
        else:
            applies = _apply(child, there, observed.owner)
        replicas = course.replicas.get(child.key, child.replicas)
        scales, held = _scale(child, replicas, there, observed)
        # A pod more comes before the template that ends one.
        steps += [*scales, *applies] if _grows(there, replicas) else [*applies, *scales]
        if held is not None:
            refusals[child.key] = held
    return steps, refusals


def _grows(there: Child | None, replicas: int | None) -> bool:
    return there is not None and there.replicas is not None and there.replicas < (replicas or 0)


def _is_finished_with(child: Outline, there: Child | None) -> bool:
    """Whether an object that cannot be changed is there as some operator of ours made it.

    Its labels are healed by the apply that made it; that of another operator would be refused.
    """
    if there is None or there.applied == child.applied:
        return False
    mark: Json = {"metadata": {"annotations": {names.ANNOTATION_APPLIED: ""}}}
    return drift.owns_all(mark, drift.fields(there.managed))


def _found_again(child: Outline, there: Child | None) -> list[Step]:
    """Return the heal of a child that may not be made now, but may be there all the same.

    Without the labels by which it is watched it looks as if it were not.
    """
    return [Apply(child.rank, child.object, HEALED, heal=True)] if there is None else []


def _refusal(child: Outline, there: Child | None, observed: Observed) -> Refusal | None:
    if there is None:
        return None
    foreign = safety.foreign_object_not_ours(there, observed.owner)
    return foreign or safety.volume_never_shrinks(child.storage, there)


def _apply(child: Outline, there: Child | None, owner: Owner) -> list[Step]:
    if there is None:
        return [Apply(child.rank, child.object, CREATED)]
    if there.deleting or (child.once and _is_finished_with(child, there)):
        return []
    current = there.applied == child.applied
    if current and child.is_owned(there.managed):
        return []
    # A growth that the API server refuses must not hold what has another rank.
    rank = Rank.PRUNE if safety.is_more(child.storage, there.requested) else child.rank
    if current:
        return [Apply(rank, child.object, HEALED, there.uid, heal=True)]
    predecessor = there.cluster_uid not in ("", owner.uid)
    reason = TAKEN_OVER if predecessor else CHANGED
    return [Apply(rank, child.object, reason, there.uid)]


def _scale(
    child: Outline, replicas: int | None, there: Child | None, observed: Observed
) -> tuple[list[Step], Refusal | None]:
    kind, name = child.key
    if replicas is None:
        return [], None
    if there is None:
        return [Scale(child.rank, kind, name, replicas, CREATED)], None
    if there.replicas == replicas and there.scaler_owns_replicas:
        return [], None
    if there.replicas is not None and there.replicas > replicas:
        held = safety.cache_is_settled(observed)
        if held is not None:
            return [], held
    return [Scale(child.rank, kind, name, replicas, SCALED, there.uid)], None


def _deletes(
    observed: Observed, wanted: Target, now_s: float
) -> tuple[list[Step], dict[ChildKey, Refusal]]:
    keys = {child.key for child in wanted.children}
    surplus = [
        there
        for key, there in sorted(observed.children.items())
        if key not in keys
        and there.kind in PRUNED
        and there.owner_uid == observed.owner.uid
        and not there.deleting
    ]
    found = {one.key: _stays(one, observed, wanted, now_s) for one in surplus}
    steps: list[Step] = [
        Delete(Rank.PRUNE, one.kind, one.name, one.uid, NOT_WANTED)
        for one in surplus
        if found[one.key] is None
    ]
    return steps, {key: refusal for key, refusal in found.items() if refusal is not None}


def _stays(there: Child, observed: Observed, wanted: Target, now_s: float) -> Refusal | None:
    """Return why a child that the spec no longer asks for is not removed yet."""
    component = there.component
    held = safety.cache_is_settled(observed)
    held = held or rollout.shard_still_owns_slots(there, observed, now_s)
    if held is not None or there.kind != "Deployment" or progress.tier_of(component) != INFERENCE:
        return held
    staying = {
        child.key[1]: progress.is_rolled_out(child, observed.children.get(child.key))
        for child in wanted.children
        if child.replicas is not None and progress.tier_of(child.component) == INFERENCE
    }
    was_managed = component == Component.INFERENCE
    is_managed = wanted.ctx.spec.inference.ollama is not None
    return safety.answers_go_on(there, staying, other_kind=was_managed != is_managed)


def _status_of(picture: Picture) -> tuple[Json | None, float | None]:
    observed = picture.observed
    owner = observed.owner
    unread = [one for one in picture.secret_refusals.values() if _is_unknown(one)]
    if unread and owner.status.get("observedGeneration") == owner.generation:
        return None, None
    return _status_step(observed, status.compute(picture), picture.now_s)


def _is_unknown(refusal: Refusal) -> bool:
    return refusal.reason is Reason.STATUS_UNKNOWN


def _status_step(observed: Observed, new: Json, now_s: float) -> tuple[Json | None, float | None]:
    wait_s = status.due(observed.owner.status, new, observed.status_written_at_s, now_s)
    if wait_s is None:
        return None, None
    return (new, None) if wait_s == 0 else (None, wait_s)


def _ranked(*steps: Iterable[Step]) -> tuple[Step, ...]:
    return tuple(sorted(chain(*steps), key=lambda one: one.rank))


def _refusals(picture: Picture) -> tuple[Refusal, ...]:
    whole = [one for one in (picture.no_step, picture.suspended) if one]
    return _distinct([*picture.secret_refusals.values(), *picture.refusals.values(), *whole])


def _distinct(refusals: list[Refusal]) -> tuple[Refusal, ...]:
    return tuple(dict.fromkeys(refusals))
