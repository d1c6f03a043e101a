"""Feeders against an API server in memory: gaps, silence, polls."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from fakes.kube import FakeKube
from fakes.runtime import FakeRuntime

from chatbot_core import names
from chatbot_core.retry import Clockwork
from chatbot_core.runtime_config import Member, RuntimeStatus
from chatbot_operator.entries import PodEntry
from chatbot_operator.facts import FAILURES_TO_UNKNOWN, RuntimeFacts, SecretFacts
from chatbot_operator.feeders import (
    SECRET_AWAITED_S,
    SECRET_CALM_S,
    STATUS_BUSY_S,
    STATUS_CALM_S,
    SecretPoll,
    StatusPoll,
    child_feed,
    list_once,
    list_watch,
)
from chatbot_operator.heartbeats import Heartbeats
from chatbot_operator.kinds import Object, Ref
from chatbot_operator.kube import WatchExpiredError
from chatbot_operator.model import Child, Owner, Pod, WantedSecret
from chatbot_operator.store import OwnerKey, Store

KEY = ("ns", "chat")
X = Ref("ConfigMap", "ns", "x")


def config_map(name: str, **data: str) -> Object:
    labels = {names.LABEL_MANAGED_BY: names.MANAGER, names.LABEL_INSTANCE: "chat"}
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name, "namespace": "ns", "labels": labels},
        "data": {names.CHOICE_KEY: data.get("choice", "")},
    }


@asynccontextmanager
async def fed(kube: FakeKube) -> AsyncIterator[tuple[Store[Ref, Child], list[OwnerKey]]]:
    woken: list[OwnerKey] = []
    store: Store[Ref, Child] = Store(woken.append)
    loop = asyncio.get_running_loop()

    async def sleep(wait_s: float) -> None:
        await asyncio.sleep(wait_s / 100)

    clockwork = Clockwork(loop.time, sleep, lambda: 0.5)
    feed = child_feed("ConfigMap", "", store)
    task = asyncio.create_task(list_watch(kube, feed, Heartbeats(loop.time), clockwork))
    await store_listed(store)
    try:
        yield store, woken
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def store_listed(store: Store[Ref, Child]) -> None:
    async with asyncio.timeout(2):
        await store.until_complete()


async def test_a_change_and_a_deletion_arrive() -> None:
    kube = FakeKube()
    await kube.put_live(config_map("x"))
    async with fed(kube) as (store, woken):
        assert store.get(X) is not None
        await kube.put_live(config_map("x", choice="new"))
        await asyncio.sleep(0.02)
        found = store.get(X)
        assert found is not None
        assert found.choice == "new"
        await kube.remove(X)
        await asyncio.sleep(0.02)
        assert store.get(X) is None
        assert woken == [KEY, KEY, KEY]


async def test_what_was_deleted_in_a_gap_that_the_server_forgot_vanishes() -> None:
    kube = FakeKube(watch_s=0.05)
    await kube.put_live(config_map("x"))
    async with fed(kube) as (store, woken):
        woken.clear()
        kube.objects.pop(X)
        kube.version += 10
        kube.forgotten_before = kube.version
        await asyncio.sleep(0.2)
        assert store.get(X) is None
        assert woken == [KEY]


async def test_a_list_of_many_pages_arrives_whole() -> None:
    kube = FakeKube(page=2)
    for number in range(5):
        await kube.put_live(config_map(f"x-{number}"))
    async with fed(kube) as (store, _):
        assert len(store.of_owner(KEY)) == 5


async def test_a_list_whose_pages_the_server_forgot_meanwhile_begins_again() -> None:
    kube = FakeKube(page=2, forgotten_before=1000)
    for number in range(5):
        await kube.put_live(config_map(f"x-{number}"))
    feed = child_feed("ConfigMap", "", Store[Ref, Child](lambda _: None))
    with pytest.raises(WatchExpiredError):
        await list_once(kube, feed)
    assert feed.store.owners() == ()
    kube.version = 1001
    async with fed(kube) as (store, _):
        assert len(store.of_owner(KEY)) == 5


async def test_an_interrupted_watch_goes_on_where_it_was() -> None:
    kube = FakeKube(watch_s=0.05)
    async with fed(kube) as (store, _):
        kube.down = True
        await asyncio.sleep(0.1)
        await kube.put_live(config_map("x"))
        kube.down = False
        await asyncio.sleep(0.2)
        assert store.get(X) is not None


async def test_an_awaited_secret_is_asked_for_often_and_wakes_when_it_comes() -> None:
    kube, woken = FakeKube(), list[OwnerKey]()
    facts = SecretFacts(woken.append)
    facts.want(KEY, (WantedSecret("chat-internal", frozenset({"token"}), awaited=True),))
    poll = SecretPoll(kube, facts, lambda: 7.0)
    assert not facts.of_owner(KEY)["chat-internal"].known
    assert await poll.fetch((KEY, "chat-internal")) == SECRET_AWAITED_S
    absent = facts.of_owner(KEY)["chat-internal"]
    assert (absent.known, absent.value, absent.at_s) == (True, None, 7.0)
    meta = {"name": "chat-internal", "namespace": "ns"}
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": meta, "data": {"token": "eA=="}}
    await kube.put_live(secret)
    facts.want(KEY, (WantedSecret("chat-internal", frozenset({"token"}), awaited=False),))
    assert await poll.fetch((KEY, "chat-internal")) == SECRET_CALM_S
    assert facts.token(KEY) == "x"
    assert woken == [KEY, KEY]
    await poll.fetch((KEY, "chat-internal"))
    assert woken == [KEY, KEY]
    kube.down = True
    assert await poll.fetch((KEY, "chat-internal")) == SECRET_AWAITED_S
    assert facts.of_owner(KEY)["chat-internal"].value is not None


READY = {"conditions": [{"type": "Ready", "status": "True", "reason": "Available"}]}


def status_poll(runtime: FakeRuntime, ready: bool = True) -> tuple[StatusPoll, list[OwnerKey]]:
    woken: list[OwnerKey] = []
    facts, secrets = RuntimeFacts(woken.append), SecretFacts(lambda key: None)
    secrets.read(
        (KEY, names.internal_secret("chat")),
        {
            "kind": "Secret",
            "metadata": {"name": "chat-internal", "namespace": "ns", "uid": "u"},
            "data": {"token": "eA=="},
        },
        0.0,
    )
    pods = {
        Ref("Pod", "ns", "a"): PodEntry(Pod("a", "api", ready=False), "10.0.0.1"),
        Ref("Pod", "ns", "b"): PodEntry(Pod("b", "api", ready=True), "10.0.0.2"),
        Ref("Pod", "ns", "c"): PodEntry(Pod("c", "ingest", ready=True), "10.0.0.3"),
    }
    owner = Owner("ns", "chat", "uid", 1, {}, READY if ready else {})
    poll = StatusPoll(runtime, facts, secrets, lambda key: pods, lambda key: owner, lambda: 9.0)
    return poll, woken


async def test_only_a_ready_api_pod_is_asked_with_the_token_and_the_tag() -> None:
    runtime = FakeRuntime(RuntimeStatus())
    poll, woken = status_poll(runtime)
    assert await poll.fetch(KEY) == STATUS_BUSY_S
    assert await poll.fetch(KEY) == STATUS_CALM_S
    tag = str(hash(runtime.answer))
    assert runtime.asked == [("10.0.0.2", "x", ""), ("10.0.0.2", "x", tag)]
    assert woken == [KEY]


async def test_ages_are_no_news() -> None:
    def seen(age_s: float) -> RuntimeStatus:
        member = Member(role="api", name="b", config_hash="h", ready=True, age_s=age_s)
        return RuntimeStatus(members=(member,))

    runtime = FakeRuntime(seen(1.0))
    poll, woken = status_poll(runtime)
    await poll.fetch(KEY)
    runtime.answer = seen(2.0)
    assert await poll.fetch(KEY) == STATUS_CALM_S
    assert woken == [KEY]


async def test_a_runtime_is_unknown_after_three_silent_looks_and_its_status_is_kept() -> None:
    runtime = FakeRuntime(RuntimeStatus())
    poll, woken = status_poll(runtime, ready=False)
    await poll.fetch(KEY)
    runtime.answer = None
    for _ in range(FAILURES_TO_UNKNOWN - 1):
        assert await poll.fetch(KEY) == STATUS_BUSY_S
    assert poll.facts.fact(KEY).known
    await poll.fetch(KEY)
    fact = poll.facts.fact(KEY)
    assert (fact.known, fact.value, fact.at_s) == (False, RuntimeStatus(), 9.0)
    assert woken == [KEY, KEY]
