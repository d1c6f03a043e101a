"""The executor against an API server in memory: first contact, ranks, preconditions, Events."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from fakes.kube import FakeKube
from fakes.objects import cluster

from chatbot_core import names
from chatbot_core.errors import Unavailable
from chatbot_core.reasons import Reason
from chatbot_operator import entries
from chatbot_operator.events import EventWriter
from chatbot_operator.execute import Executor
from chatbot_operator.feeders import child_feed, list_once, owner_feed
from chatbot_operator.kinds import Object, Ref, uid_of, version_of
from chatbot_operator.kube import WriteRefused
from chatbot_operator.model import (
    Apply,
    CreateSecret,
    Delete,
    Observed,
    OperatorSettings,
    Plan,
    Recipe,
    Scale,
    SetFinalizer,
    WantedSecret,
)
from chatbot_operator.observe import World, observe
from chatbot_operator.removal import LEFT_BEHIND
from chatbot_operator.store import OwnerKey

KEY = ("ns", "chat")
SETTINGS = OperatorSettings("r", "1", "d", "s", "o")
CONFIG = Ref("ConfigMap", "ns", "chat-config")
API = Ref("Deployment", "ns", "chat-api")


@dataclass(slots=True)
class Stage:
    kube: FakeKube
    world: World
    owner_uid: str
    woken: list[OwnerKey] = field(default_factory=list)

    async def observed(self) -> Observed:
        await list_once(self.kube, owner_feed("", self.world.owners))
        for kind in ("ConfigMap", "Deployment", "PersistentVolumeClaim"):
            await list_once(self.kube, child_feed(kind, "", self.world.children))
        found = observe(self.world, KEY, SETTINGS)
        assert found is not None
        return found

    async def run(self, plan: Plan) -> Any:
        return await self.execute(await self.observed(), plan)

    async def execute(self, observed: Observed, plan: Plan) -> Any:
        writer = EventWriter(self.kube, lambda: 1000.0, "test")
        executor = Executor(self.kube, self.world, writer, lambda: 1000.0, "x".__mul__)
        self.kube.calls.clear()
        return await executor.execute(observed, plan)

    def writes(self) -> list[tuple[str, str]]:
        return [(verb, f"{ref.kind}/{ref.name}") for verb, ref in self.kube.calls]

    def events(self) -> list[tuple[str, str]]:
        return [
            (obj["reason"], obj["note"])
            for ref, obj in self.kube.objects.items()
            if ref.kind == "Event"
        ]


@pytest.fixture
async def stage() -> Stage:
    kube = FakeKube()
    owner = await kube.put_live(cluster("ns"))
    woken: list[OwnerKey] = []
    return Stage(kube, World(woken.append), uid_of(owner), woken)


def child(ref: Ref, owner_uid: str = "", **meta: Any) -> Object:
    api = {"ConfigMap": "v1", "Deployment": "apps/v1"}.get(ref.kind, "v1")
    labels = {names.LABEL_MANAGED_BY: names.MANAGER, names.LABEL_INSTANCE: "chat"}
    owners = [{"uid": owner_uid, "controller": True}] if owner_uid else []
    return {
        "apiVersion": api,
        "kind": ref.kind,
        "metadata": {
            "name": ref.name,
            "namespace": ref.namespace,
            "labels": {**labels, **meta.pop("labels", {})},
            "ownerReferences": owners,
            **meta,
        },
    }


async def test_an_absent_child_is_created_and_scaled_with_its_new_uid(stage: Stage) -> None:
    steps = (Apply(0, child(API), "Created"), Scale(0, *_key(API), 2, "Created"))
    outcome = await stage.run(Plan(steps))
    live = stage.kube.objects[API]
    assert stage.writes()[:2] == [("apply", "Deployment/chat-api")] * 2
    assert live["spec"] == {"replicas": 2}
    assert outcome.refused == {}
    assert stage.events() == [("Scaled", "Deployment chat-api to 2: Created")]


async def test_pods_go_only_from_the_version_on_which_it_was_decided(stage: Stage) -> None:
    live = await stage.kube.put_live({**child(API, stage.owner_uid), "spec": {"replicas": 5}})
    down = Plan((Scale(0, *_key(API), 2, "TakenBack", uid_of(live)),))
    observed = await stage.observed()
    await stage.kube.put_live({**live, "spec": {"replicas": 4}})
    with pytest.raises(Unavailable, match="changed meanwhile"):
        await stage.execute(observed, down)
    assert stage.kube.objects[API]["spec"] == {"replicas": 4}
    await stage.run(down)
    assert stage.kube.objects[API]["spec"] == {"replicas": 2}


async def test_a_template_that_waits_for_one_more_pod_does_not_go_out_without_it(
    stage: Stage,
) -> None:
    before = await stage.kube.put_live({**child(API, stage.owner_uid), "spec": {"replicas": 1}})
    stage.kube.refuse[API] = WriteRefused(403, "Forbidden", "exceeded quota")
    new, uid = child(API, stage.owner_uid), uid_of(before)
    steps = (Scale(5, *_key(API), 2, "Scaled", uid), Apply(5, new, "Changed", uid))
    outcome = await stage.run(Plan(steps))
    assert list(outcome.refused) == [_key(API)]
    # The scale alone was tried.
    assert stage.writes() == [("apply", "Deployment/chat-api")]
    assert stage.kube.objects[API] == before


async def test_a_foreign_object_is_refused_and_ends_the_pass_after_its_rank(stage: Stage) -> None:
    theirs = await stage.kube.put_live(child(CONFIG, "somebody"))
    same_rank, later = Ref("ConfigMap", "ns", "other"), Ref("ConfigMap", "ns", "later")
    steps = (
        Apply(0, child(CONFIG), "Created"),
        Apply(0, child(same_rank), "Created"),
        Apply(1, child(later), "Created"),
    )
    outcome = await stage.run(Plan(steps))
    refusal = outcome.refused[_key(CONFIG)]
    assert (refusal.name, refusal.reason) == ("foreign_object", Reason.FOREIGN_OBJECT)
    assert "ConfigMap ns/chat-config" in refusal.message
    assert stage.writes() == [("apply", "ConfigMap/other")]
    assert stage.kube.objects[CONFIG] == theirs
    assert (await stage.observed()).refused == outcome.refused


async def test_a_refusal_is_forgotten_when_the_step_succeeds(stage: Stage) -> None:
    await stage.kube.put_live(child(CONFIG, "somebody"))
    plan = Plan((Apply(0, child(CONFIG), "Created"),))
    assert (await stage.run(plan)).refusals_changed
    assert not (await stage.run(plan)).refusals_changed
    await stage.kube.remove(CONFIG)
    outcome = await stage.run(plan)
    assert (outcome.refused, outcome.refusals_changed) == ({}, True)


async def test_an_object_with_our_owner_is_ours_at_first_contact(stage: Stage) -> None:
    live = await stage.kube.put_live(child(CONFIG, stage.owner_uid))
    await stage.run(Plan((Apply(0, child(CONFIG, stage.owner_uid), "Created"),)))
    assert stage.writes() == [("apply", "ConfigMap/chat-config")]
    assert uid_of(stage.kube.objects[CONFIG]) == uid_of(live)


async def test_a_heal_at_first_contact_finds_what_lost_its_labels_and_makes_nothing(
    stage: Stage,
) -> None:
    plan = Plan((Apply(0, child(CONFIG, stage.owner_uid), "Healed", heal=True),))
    await stage.run(plan)
    assert stage.writes() == []
    live = await stage.kube.put_live(child(CONFIG, stage.owner_uid, labels={names.LABEL_NAME: "x"}))
    live["metadata"]["labels"].pop(names.LABEL_MANAGED_BY)
    await stage.kube.put_live(live)
    outcome = await stage.run(plan)
    assert outcome.done == ["apply ConfigMap/chat-config (Healed)"]
    assert stage.kube.objects[CONFIG]["metadata"]["labels"][names.LABEL_MANAGED_BY] == names.MANAGER


@pytest.mark.parametrize(
    ("label", "controller", "taken"),
    [("ns.chat", "", True), ("ns.other", "", False), ("ns.chat", "somebody", False)],
)
async def test_only_what_was_left_to_this_name_is_taken_over(
    stage: Stage, label: str, controller: str, taken: bool
) -> None:
    ref = Ref("PersistentVolumeClaim", "ns", "chat-database")
    left = child(ref, controller, labels={names.LABEL_RETAINED_FROM: label})
    await stage.kube.put_live(left)
    outcome = await stage.run(Plan((Apply(0, child(ref), "Created"),)))
    assert (outcome.refused == {}) is taken
    told = [reason for reason, _ in stage.events()]
    assert told == (["TakenOver"] if taken else [])


async def test_nothing_is_made_for_an_owner_that_is_gone_or_new(stage: Stage) -> None:
    observed = await stage.observed()
    await stage.kube.remove(Ref(names.KIND, "ns", "chat"))
    await stage.kube.put_live(cluster("ns"))
    writer = EventWriter(stage.kube, lambda: 0.0, "test")
    executor = Executor(stage.kube, stage.world, writer, lambda: 0.0, "x".__mul__)
    steps = (Apply(0, child(CONFIG), "Created"),)
    outcome = await executor.execute(observed, Plan(steps, status={"observedGeneration": 1}))
    assert outcome.owner_gone
    assert stage.kube.calls == []


async def test_a_delete_names_the_version_it_means(stage: Stage) -> None:
    live = await stage.kube.put_live(child(CONFIG, stage.owner_uid))
    step = Delete(9, *_key(CONFIG), uid_of(live), "NotWanted")
    await stage.run(Plan((step,)))
    assert CONFIG not in stage.kube.objects
    assert stage.events() == [("Deleted", "ConfigMap chat-config: NotWanted")]


async def test_a_child_that_changed_meanwhile_is_read_again(stage: Stage) -> None:
    await stage.kube.put_live(child(CONFIG, stage.owner_uid))
    observed = await stage.observed()
    stale = observed.children[_key(CONFIG)]
    await stage.kube.remove(CONFIG)
    writer = EventWriter(stage.kube, lambda: 0.0, "test")
    executor = Executor(stage.kube, stage.world, writer, lambda: 0.0, "x".__mul__)
    step = Apply(0, child(CONFIG, stage.owner_uid), "Changed", stale.uid)
    with pytest.raises(Unavailable, match="changed meanwhile"):
        await executor.execute(observed, Plan((step,)))
    assert stage.world.children.get(CONFIG) is None


async def test_a_child_that_the_watch_has_shown_already_is_not_shielded(stage: Stage) -> None:
    live = await stage.kube.put_live(child(CONFIG, stage.owner_uid))
    await stage.observed()
    stage.world.read_child(CONFIG, live)
    assert stage.world.children.settled(KEY)
    assert stage.world.children.get(CONFIG) is not None
    labels = {names.LABEL_INSTANCE: "chat"}
    stage.world.read_child(CONFIG, {**live, "metadata": {**live["metadata"], "labels": labels}})
    assert stage.world.children.get(CONFIG) is None


async def test_a_secret_that_vanished_between_two_looks_is_known_to_be_absent(
    stage: Stage,
) -> None:
    ref = Ref("Secret", "ns", "chat-internal")
    secret = child(ref, stage.owner_uid)
    stage.world.secrets.want(KEY, (WantedSecret(ref.name, frozenset(), awaited=False),))
    stage.world.secrets.read((KEY, ref.name), await stage.kube.put_live(secret), 0.0)
    await stage.kube.remove(ref)
    with pytest.raises(Unavailable, match="changed meanwhile"):
        await stage.run(Plan((Apply(0, secret, "Changed", "its-former-uid"),)))
    fact = stage.world.secrets.fact((KEY, ref.name))
    assert (fact.known, fact.value) == (True, None)


async def test_a_write_that_the_server_refuses_is_told_in_its_own_words(stage: Stage) -> None:
    stage.kube.refuse[CONFIG] = WriteRefused(422, "Invalid", "data: must not be blue")
    outcome = await stage.run(Plan((Apply(0, child(CONFIG), "Created"),)))
    refusal = outcome.refused[_key(CONFIG)]
    assert refusal.reason is Reason.WRITE_REFUSED
    assert "must not be blue" in refusal.message


async def test_a_secret_is_drawn_once_and_never_again(stage: Stage) -> None:
    ref = Ref("Secret", "ns", "chat-internal")
    recipe = Recipe((("token", 3),), (("user", "a"),), (("dsn", "{user}:{token}"),))
    step = CreateSecret(0, child(ref), recipe, "Created")
    await stage.run(Plan((step,)))
    made = stage.kube.objects[ref]
    assert made["stringData"] == {"token": "xxx", "user": "a", "dsn": "a:xxx"}
    await stage.run(Plan((step,)))
    assert stage.writes() == []
    assert stage.world.secrets.fact((KEY, ref.name)).known


async def test_the_status_is_written_only_where_it_differs(stage: Stage) -> None:
    status = {
        "observedGeneration": 1,
        "conditions": [{"type": "Ready", "status": "False", "reason": "WaitingForPods"}],
    }
    assert (await stage.run(Plan(status=status))).status_written
    assert stage.events() == [("WaitingForPods", "Ready is False")]
    assert not (await stage.run(Plan(status=status))).status_written
    assert stage.writes() == []


async def test_a_pass_shields_what_it_wrote(stage: Stage) -> None:
    await stage.run(Plan((Apply(0, child(CONFIG, stage.owner_uid), "Created"),)))
    assert not stage.world.children.settled(KEY)
    written = stage.world.children.get(CONFIG)
    assert written is not None
    assert replace(written, resource_version="") == replace(
        entries.child(stage.kube.objects[CONFIG]), resource_version=""
    )


def _key(ref: Ref) -> tuple[str, str]:
    return ref.kind, ref.name


async def test_a_status_write_that_lost_a_race_does_not_forget_the_object(stage: Stage) -> None:
    observed, plan = await stage.observed(), Plan(status={"observedGeneration": 1})
    stage.kube.refuse[OWNER] = WriteRefused(409, "Conflict", "try again")
    with pytest.raises(Unavailable):
        await stage.execute(observed, plan)
    del stage.kube.objects[OWNER]
    assert (await stage.execute(observed, plan)).owner_gone


OWNER = Ref(names.KIND, "ns", "chat")
HOLD = SetFinalizer(0, "chat", present=True, reason="Promised")
RELEASE = SetFinalizer(9, "chat", present=False, reason=LEFT_BEHIND, note="left behind: all")


def finalizers(stage: Stage) -> list[str]:
    return list(stage.kube.objects[OWNER]["metadata"].get("finalizers") or ())


async def test_our_finalizer_is_set_once_beside_those_of_others(stage: Stage) -> None:
    await stage.kube.set_finalizers(stage.kube.objects[OWNER], ["example.com/theirs"])
    await stage.run(Plan(steps=(HOLD,)))
    assert finalizers(stage) == ["example.com/theirs", names.FINALIZER]
    found = stage.world.owner(KEY)
    assert found is not None
    assert found.finalizers == ("example.com/theirs", names.FINALIZER)
    await stage.run(Plan(steps=(HOLD,)))
    assert stage.writes() == []
    await stage.run(Plan(steps=(RELEASE,)))
    assert finalizers(stage) == ["example.com/theirs"]
    assert stage.events() == [(LEFT_BEHIND, "left behind: all")]


async def _going(stage: Stage) -> None:
    live = await stage.kube.set_finalizers(stage.kube.objects[OWNER], [names.FINALIZER])
    assert not isinstance(live, WriteRefused)
    await stage.kube.delete(OWNER, uid_of(live), version_of(live))


async def test_an_object_that_we_hold_is_acted_for_until_it_is_released(stage: Stage) -> None:
    await _going(stage)
    await stage.run(Plan(steps=(Apply(4, child(CONFIG), "Created"),)))
    assert stage.writes() == [("apply", "ConfigMap/chat-config")]
    outcome = await stage.run(Plan(steps=(RELEASE,)))
    assert OWNER not in stage.kube.objects
    assert not outcome.owner_gone


async def test_an_object_that_somebody_released_gets_nothing_made(stage: Stage) -> None:
    await _going(stage)
    observed = await stage.observed()
    others = await stage.kube.set_finalizers(stage.kube.objects[OWNER], ["example.com/theirs"])
    assert not isinstance(others, WriteRefused)
    outcome = await stage.execute(observed, Plan(steps=(Apply(4, child(CONFIG), "Created"),)))
    assert outcome.owner_gone
    assert stage.writes() == []


async def test_what_is_left_by_an_ending_namespace_is_told_beside_it(stage: Stage) -> None:
    await _going(stage)
    stage.kube.ending.add("ns")
    outcome = await stage.run(Plan(steps=(Apply(4, child(CONFIG), "Created"),)))
    ((key, refusal),) = outcome.refused.items()
    assert (key, refusal.reason) == (("ConfigMap", "chat-config"), Reason.NAMESPACE_TERMINATING)
    await stage.run(Plan(steps=(RELEASE,)))
    (event,) = [obj for ref, obj in stage.kube.objects.items() if ref.kind == "Event"]
    assert event["metadata"]["namespace"] == "default"
    assert event["note"] == "ChatbotCluster chat: left behind: all"
    assert event["regarding"] == {"apiVersion": "v1", "kind": "Namespace", "name": "ns"}
