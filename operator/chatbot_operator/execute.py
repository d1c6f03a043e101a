"""Carries out a plan: steps by rank, first contact, healing, status, Events.

Safe to die anywhere: every step is idempotent, and the next pass plans from what is there.
Nobody else's object is touched: an object that we have not met is read live first, and every
later apply carries `metadata.uid`, so that it can only update the object that we know.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from http import HTTPStatus
from typing import Final

from chatbot_core import names
from chatbot_core.errors import Unavailable
from chatbot_core.reasons import Reason
from chatbot_operator import contact, heal
from chatbot_operator.events import EventWriter, News, of_conditions
from chatbot_operator.generated import filled
from chatbot_operator.kinds import Object, Ref, ref_of, resource, uid_of
from chatbot_operator.kube import NAMESPACE_TERMINATING, Kube, WriteRefused
from chatbot_operator.model import (
    Apply,
    ChildKey,
    CreateSecret,
    Delete,
    Observed,
    Owner,
    Plan,
    Refusal,
    Scale,
    SetFinalizer,
    Step,
    step_key,
)
from chatbot_operator.observe import World
from chatbot_operator.plan import TAKEN_OVER
from chatbot_operator.removal import LEFT_BEHIND

#: Answers that say "not what you think": the store is behind, a fresh look is needed.
_STALE: Final = frozenset({HTTPStatus.NOT_FOUND, HTTPStatus.CONFLICT})
#: Controllers write a workload's status while it is healed; a PUT then meets a newer version.
_TIDY_TRIES: Final = 5

_log = logging.getLogger(__name__)


class Verdict(Enum):
    """How a step went."""

    DONE = "done"
    REFUSED = "refused"
    LEFT_OUT = "left out"


class OwnerGoneError(Exception):
    """The ChatbotCluster was deleted, made anew or handed over: nothing is written for it."""


@dataclass(slots=True)
class Outcome:
    """What one pass wrote and what it could not."""

    done: list[str] = field(default_factory=list)
    refused: dict[ChildKey, Refusal] = field(default_factory=dict)
    status_written: bool = False
    owner_gone: bool = False
    refusals_changed: bool = False

    @property
    def changed(self) -> bool:
        """Whether anything was written."""
        return bool(self.done) or self.status_written


@dataclass(frozen=True, slots=True)
class Executor:
    """The only writer. `kube` stands behind the fence: who does not lead is Denied each write."""

    kube: Kube
    world: World
    events: EventWriter
    now_s: Callable[[], float]
    draw: Callable[[int], str]

    async def execute(self, observed: Observed, plan: Plan) -> Outcome:
        """Carry out a plan; what the server refuses is in the outcome.

        Raises Unavailable, and Denied when this process does not lead any more.
        """
        run = _Pass(self, observed, Outcome())
        try:
            await run.steps(plan.steps)
            run.remember(plan.steps)
            await run.status(plan)
        except OwnerGoneError:
            run.outcome.owner_gone = True
        return run.outcome


@dataclass(slots=True)
class _Pass:
    shell: Executor
    observed: Observed
    outcome: Outcome
    owner_was_read: bool = False
    applied_uids: dict[ChildKey, str] = field(default_factory=dict)
    failed: set[ChildKey] = field(default_factory=set)
    succeeded: set[ChildKey] = field(default_factory=set)
    news: list[News] = field(default_factory=list)

    @property
    def owner(self) -> Owner:
        return self.observed.owner

    async def steps(self, steps: Sequence[Step]) -> None:
        """Run the steps in order; a refusal ends the pass after its rank."""
        refused_rank: int | None = None
        for step in steps:
            if refused_rank is not None and step.rank > refused_rank:
                return
            verdict = await self._step(step)
            if verdict is Verdict.REFUSED:
                refused_rank = step.rank if refused_rank is None else refused_rank

    async def _step(self, step: Step) -> Verdict:
        if step_key(step) in self.failed:
            # A template that waits for one more pod must not go out without it.
            return Verdict.LEFT_OUT
        match step:
            case Apply():
                verdict = await self._apply(step)
            case CreateSecret():
                verdict = await self._create_secret(step)
            case Scale():
                verdict = await self._scale(step)
            case Delete():
                verdict = await self._delete(step)
            case SetFinalizer():
                verdict = await self._set_finalizer(step)
        if verdict is Verdict.DONE:
            self.succeeded.add(step_key(step))
        if verdict is Verdict.REFUSED:
            self.failed.add(step_key(step))
        return verdict

    async def _apply(self, step: Apply) -> Verdict:
        ref = ref_of(step.object)
        if step.uid is None:
            return await self._first_contact(step, ref)
        if step.heal:
            live = await self.shell.kube.get(ref)
            if live is None or uid_of(live) != step.uid:
                return await self._first_contact(replace(step, heal=False), ref)
            return await self._heal(step, live)
        return await self._send(step, ref, step.uid)

    async def _first_contact(self, step: Apply, ref: Ref) -> Verdict:
        live = await self.shell.kube.get(ref)
        if live is None:
            if step.heal:
                return Verdict.LEFT_OUT
            await self._require_owner()
            return await self._send(step, ref, None)
        if not contact.is_ours(live, self.owner):
            if not contact.is_left_to(live, self.owner):
                return self._refuse(ref, contact.foreign(ref))
            step = replace(step, reason=TAKEN_OVER)
        return await self._heal(step, live)

    async def _heal(self, step: Apply, live: Object) -> Verdict:
        ref = ref_of(step.object)
        # Secrets hold no keyed list of ours, and no right to replace one is asked for.
        pruned = None if ref.kind == "Secret" else heal.without_foreign_items(step.object, live)
        if pruned is None:
            return await self._send(step, ref, uid_of(live))
        answer = await self.shell.kube.replace(pruned)
        if isinstance(answer, WriteRefused):
            return await self._refused(ref, answer)
        return await self._send(step, ref, uid_of(live))

    async def _send(self, step: Apply, ref: Ref, uid: str | None) -> Verdict:
        obj = step.object
        if step.reason == TAKEN_OVER:
            await self._require_owner()
        if uid is not None:
            obj = {**obj, "metadata": {**obj["metadata"], "uid": uid}}
        answer = await self.shell.kube.apply(obj, names.MANAGER)
        if not isinstance(answer, WriteRefused) and await self._tidied(ref, answer):
            # What only the removed entry held on to goes with the second apply.
            answer = await self.shell.kube.apply(obj, names.MANAGER)
        if isinstance(answer, WriteRefused):
            return await self._refused(ref, answer)
        self._take(ref, answer)
        self.applied_uids[ref.kind, ref.name] = uid_of(answer)
        if step.reason == TAKEN_OVER:
            note = f"{ref.kind} {ref.name} of the former object of this name is kept"
            self.news.append(News(TAKEN_OVER, "TakeOver", note))
        self.outcome.done.append(f"apply {ref.kind}/{ref.name} ({step.reason})")
        return Verdict.DONE

    async def _tidied(self, ref: Ref, live: Object | None) -> bool:
        """Remove what a PUT of ours left in managedFields; say whether it was there."""
        for _ in range(_TIDY_TRIES):
            tidy = None if live is None else heal.without_update_entry(live)
            # A Secret is created by a POST, whose entry owns the data that no apply may own.
            if tidy is None or ref.kind == "Secret":
                return False
            if not isinstance(await self.shell.kube.replace(tidy), WriteRefused):
                return True
            live = await self.shell.kube.get(ref)
        _log.warning("object is written too often to tidy it", extra={"object": str(ref)})
        return False

    async def _create_secret(self, step: CreateSecret) -> Verdict:
        ref = ref_of(step.object)
        live = await self.shell.kube.get(ref)
        if live is None:
            await self._require_owner()
            answer = await self.shell.kube.create(filled(step.object, step.recipe, self.shell.draw))
            if isinstance(answer, WriteRefused):
                return await self._refused(ref, answer)
            live = answer
            self.outcome.done.append(f"create {ref.kind}/{ref.name} ({step.reason})")
        self._take(ref, live)
        return Verdict.DONE

    async def _scale(self, step: Scale) -> Verdict:
        key = (step.kind, step.name)
        uid = self.applied_uids.get(key) or step.uid
        if uid is None:
            return Verdict.LEFT_OUT
        ref = Ref(step.kind, self.owner.namespace, step.name)
        metadata = {"name": step.name, "namespace": ref.namespace, "uid": uid}
        known = self.observed.children.get(key)
        if (
            known is not None
            and step.replicas < (known.replicas or 0)
            and key not in self.applied_uids
        ):
            # Pods go only from the very version on which it was decided.
            metadata["resourceVersion"] = known.resource_version
        answer = await self.shell.kube.apply(
            {
                "apiVersion": resource(step.kind).api_version,
                "kind": step.kind,
                "metadata": metadata,
                "spec": {"replicas": step.replicas},
            },
            names.SCALER_MANAGER,
        )
        if isinstance(answer, WriteRefused):
            return await self._refused(ref, answer)
        self._take(ref, answer)
        self.outcome.done.append(f"scale {step.kind}/{step.name} ({step.reason})")
        self.news.append(
            News("Scaled", "Scale", f"{ref.kind} {ref.name} to {step.replicas}: {step.reason}")
        )
        return Verdict.DONE

    async def _delete(self, step: Delete) -> Verdict:
        ref = Ref(step.kind, self.owner.namespace, step.name)
        await self._require_owner()
        known = self.observed.children.get((step.kind, step.name))
        if known is None or known.uid != step.uid:
            return Verdict.LEFT_OUT
        answer = await self.shell.kube.delete(ref, step.uid, known.resource_version)
        if isinstance(answer, WriteRefused):
            return await self._refused(ref, answer)
        self.shell.world.deleted_child(ref, (self.owner.namespace, self.owner.name))
        self.outcome.done.append(f"delete {step.kind}/{step.name} ({step.reason})")
        self.news.append(News("Deleted", "Delete", f"{ref.kind} {ref.name}: {step.reason}"))
        return Verdict.DONE

    async def _set_finalizer(self, step: SetFinalizer) -> Verdict:
        live = await self._live_owner()
        held = list(live["metadata"].get("finalizers") or ())
        if (names.FINALIZER in held) == step.present:
            return Verdict.DONE
        if step.note:
            left = step.reason == LEFT_BEHIND
            news = News(step.reason, "Release", step.note, warning=left, outlives=True)
            await self.shell.events.tell(self.owner, [news])
        others = [one for one in held if one != names.FINALIZER]
        wanted = [*others, names.FINALIZER] if step.present else others
        answer = await self.shell.kube.set_finalizers(live, wanted)
        if isinstance(answer, WriteRefused):
            return await self._refused(Ref(names.KIND, self.owner.namespace, step.name), answer)
        if not self.owner.deleting:
            self.shell.world.wrote_owner(answer)
        self.outcome.done.append(f"finalizer {names.KIND}/{step.name} ({step.reason})")
        return Verdict.DONE

    async def _require_owner(self) -> None:
        """Read the owner live, once a pass, before the first create or delete."""
        if self.owner_was_read:
            return
        await self._live_owner()
        self.owner_was_read = True

    async def _live_owner(self) -> Object:
        """Return the owner as it is now; one that is going needs our finalizer to be acted for."""
        live = await self.shell.kube.get(Ref(names.KIND, self.owner.namespace, self.owner.name))
        if live is None or uid_of(live) != self.owner.uid:
            raise OwnerGoneError
        meta = live["metadata"]
        held = names.FINALIZER in (meta.get("finalizers") or ())
        going = "deletionTimestamp" in meta and not (self.owner.deleting and held)
        if going or self.shell.world.own_key(live) is None:
            raise OwnerGoneError
        return live

    async def _refused(self, ref: Ref, answer: WriteRefused) -> Verdict:
        """Sort a refused write: the store was behind (look again), or a fault for people."""
        if answer.code in _STALE:
            live = await self.shell.kube.get(ref)
            if ref.kind == "Secret":
                owner = (self.owner.namespace, self.owner.name)
                self.shell.world.secrets.read((owner, ref.name), live, self.shell.now_s())
            else:
                self.shell.world.read_child(ref, live)
            raise Unavailable(str(ref), f"it changed meanwhile: {answer.message}")
        if answer.reason == NAMESPACE_TERMINATING:
            words = f"namespace {ref.namespace} is being deleted: {ref} cannot be made in it"
            refusal = Refusal("namespace_ends", Reason.NAMESPACE_TERMINATING, words)
            return self._refuse(ref, refusal)
        words = f"{ref} was refused by the API server: {answer.message}"
        return self._refuse(ref, Refusal("write_refused", Reason.WRITE_REFUSED, words))

    def _refuse(self, ref: Ref, refusal: Refusal) -> Verdict:
        self.outcome.refused[ref.kind, ref.name] = refusal
        return Verdict.REFUSED

    def _take(self, ref: Ref, live: Object) -> None:
        owner = (self.owner.namespace, self.owner.name)
        if ref.kind == "Secret":
            self.shell.world.secrets.read((owner, ref.name), live, self.shell.now_s())
        else:
            self.shell.world.wrote_child({**live, "kind": ref.kind})

    def remember(self, steps: Sequence[Step]) -> None:
        """Keep what could not be done until it is done or no longer wanted."""
        memory = self.shell.world.memory(self.owner)
        wanted = {step_key(step) for step in steps}
        kept = {
            key: refusal
            for key, refusal in memory.refused.items()
            if key in wanted and key not in self.succeeded
        }
        refused = {**kept, **self.outcome.refused}
        self.outcome.refusals_changed = refused != memory.refused
        memory.refused = refused

    async def status(self, plan: Plan) -> None:
        """Write the whole status where it differs, then tell what changed."""
        if plan.status is not None and plan.status != self.owner.status:
            answer = await self.shell.kube.apply_status(self._status_object(plan.status))
            if isinstance(answer, WriteRefused):
                if answer.code in _STALE:
                    # Only a look tells an object that is gone from a write that lost a race.
                    await self._live_owner()
                raise Unavailable("status", answer.message)
            self.shell.world.wrote_owner(answer)
            self.shell.world.memory(self.owner).status_written_at_s = self.shell.now_s()
            self.outcome.status_written = True
            self.news.extend(of_conditions(self.owner.status, plan.status))
        await self.shell.events.tell(self.owner, self.news)

    def _status_object(self, status: Object) -> Object:
        return {
            "apiVersion": names.API_VERSION,
            "kind": names.KIND,
            "metadata": {
                "name": self.owner.name,
                "namespace": self.owner.namespace,
                "uid": self.owner.uid,
            },
            "status": status,
        }
