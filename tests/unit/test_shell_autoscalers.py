"""Kinds that a server need not know: absent is nothing, and they are found when they appear."""

from __future__ import annotations

import asyncio

import pytest
from fakes.kube import FakeKube

from chatbot_core import names
from chatbot_core.errors import ChatbotError, Denied, NotFound
from chatbot_core.retry import Clockwork
from chatbot_operator import entries, feeders
from chatbot_operator.feeders import autoscaler_feed, list_watch
from chatbot_operator.heartbeats import Heartbeats
from chatbot_operator.kinds import AUTOSCALERS, Object, Ref
from chatbot_operator.model import Autoscaler, OperatorSettings
from chatbot_operator.observe import World, observe
from chatbot_operator.store import Entry, OwnerKey, Store

OWNER = Ref(names.KIND, "ns", "chat")


def scaled_object(target: Object) -> Object:
    return {
        "apiVersion": "keda.sh/v1alpha1",
        "kind": "ScaledObject",
        "metadata": {"name": "more", "namespace": "ns", "resourceVersion": "7"},
        "spec": {"scaleTargetRef": target},
    }


def test_keda_leaves_out_the_kind_of_a_deployment() -> None:
    assert entries.autoscaler(scaled_object({"name": "chat-api"})) == Autoscaler(
        "ScaledObject", "more", "Deployment", "chat-api"
    )
    found = entries.autoscaler(scaled_object({"kind": "StatefulSet", "name": "chat-shard-0"}))
    assert found.target_kind == "StatefulSet"
    assert entries.target_of(scaled_object({"name": "chat-api"})) == ("ns", "chat-api")


@pytest.mark.parametrize("error", [NotFound("no such kind"), Denied("no such right")])
async def test_a_kind_that_cannot_be_read_is_nothing_and_is_found_when_it_can(
    error: ChatbotError,
) -> None:
    waits: list[float] = []
    kube, found = FakeKube(watch_s=0.05), asyncio.Event()
    store: Store[Ref, Autoscaler] = Store(lambda key: found.set())
    kube.unreadable["ScaledObject"] = error

    async def sleep(wait_s: float) -> None:
        waits.append(wait_s)
        if len(waits) == 3:
            del kube.unreadable["ScaledObject"]
            await kube.put_live(scaled_object({"name": "chat-api"}))
        await asyncio.sleep(0)

    clockwork = Clockwork(lambda: 0.0, sleep, lambda: 0.5)
    feed = autoscaler_feed("ScaledObject", "", store)
    life = asyncio.create_task(list_watch(kube, feed, Heartbeats(lambda: 0.0), clockwork))
    async with asyncio.timeout(5):
        await found.wait()
    life.cancel()
    assert len(store.of_owner(("ns", "chat-api"))) == 1
    assert waits[:3] == [feeders.ABSENT_S] * 3


def test_an_absent_kind_holds_no_start_up() -> None:
    world = World(lambda key: None)
    assert not world.autoscalers.complete
    for kind in AUTOSCALERS:
        world.autoscalers.replace(feeders.scope(kind, ""), {}, 0)
    assert world.autoscalers.complete


def test_an_autoscaler_wakes_the_owner_of_its_target_and_is_observed() -> None:
    woken: list[OwnerKey] = []
    world = World(woken.append)
    owner = {
        "metadata": {"name": "chat", "namespace": "ns", "uid": "u", "resourceVersion": "1"},
    }
    world.owners.seen("owners", OWNER, Entry(entries.owner(owner), ("ns", "chat"), 1))
    child = {
        "kind": "Deployment",
        "metadata": {"name": "chat-api", "namespace": "ns", "uid": "c", "resourceVersion": "2"},
    }
    ref = Ref("Deployment", "ns", "chat-api")
    world.children.seen("children", ref, Entry(entries.child(child), ("ns", "chat"), 2))
    woken.clear()
    for number, target in enumerate(("other", "chat-api")):
        obj = scaled_object({"name": target})
        entry = Entry(entries.autoscaler(obj), entries.target_of(obj), number + 3)
        world.autoscalers.seen("more", Ref("ScaledObject", "ns", target), entry)
    assert woken == [("ns", "chat")]
    observed = observe(world, ("ns", "chat"), OperatorSettings("r", "1", "d", "s", "o"))
    assert observed is not None
    assert observed.autoscalers == (Autoscaler("ScaledObject", "more", "Deployment", "chat-api"),)
