"""Two operators on one API server, and an object that nobody may write: classes and suspension."""

from __future__ import annotations

import asyncio

import pytest
from fakes.apiserver import Admin, StartOperator, until
from fakes.objects import cluster, cluster_ref

from chatbot_core import names
from chatbot_operator import status
from chatbot_operator.kinds import WATCHED, Ref


@pytest.fixture(autouse=True)
def _no_held_back_status(monkeypatch: pytest.MonkeyPatch) -> None:
    """Write at once what else waits for a minute, so that rest is rest."""
    monkeypatch.setattr(status, "QUIET_S", 0.5)


async def identities(admin: Admin, namespace: str) -> dict[tuple[str, str], tuple[str, int]]:
    """Return UID and generation of everything that carries our labels, pods included."""
    found = {}
    for kind in (*WATCHED, "Secret"):
        for item in await admin.list(kind, namespace):
            meta = item["metadata"]
            if names.LABEL_INSTANCE in (meta.get("labels") or {}):
                found[kind, meta["name"]] = (meta["uid"], meta.get("generation", 0))
    return found


async def observed_all(admin: Admin, namespace: str) -> bool:
    live = await admin.get(cluster_ref(namespace))
    assert live is not None
    seen: int = live["status"]["observedGeneration"]
    return seen == live["metadata"]["generation"]


async def test_an_object_of_another_class_is_left_alone_altogether(
    start_operator: StartOperator, admin: Admin, namespace: str
) -> None:
    async with start_operator(namespace) as running:
        await admin.create(cluster(namespace, operatorClass="blue"))
        await asyncio.sleep(3)
        live = await admin.get(cluster_ref(namespace))
        events = await admin.list("Event", namespace)
        assert live is not None
        assert (running.writes(), events, live["status"]) == ([], [], {"observedGeneration": -1})
        await admin.delete(cluster_ref(namespace))
        await asyncio.sleep(1)
        assert running.writes() == []


async def test_another_class_takes_an_object_over_without_touching_a_child(
    start_operator: StartOperator, admin: Admin, namespace: str
) -> None:
    async with (
        start_operator(namespace) as default,
        start_operator(namespace, operator_class="blue") as blue,
    ):
        await admin.create(cluster(namespace))
        await default.quiet()
        before = await identities(admin, namespace)
        default.forget_writes()
        for taker, giver, wanted in ((blue, default, "blue"), (default, blue, None)):
            await admin.patch(cluster_ref(namespace), {"spec": {"operatorClass": wanted}})
            await until(lambda: observed_all(admin, namespace), f"{wanted} takes over", 20)
            await asyncio.sleep(2)
            key = (namespace, "chat")
            assert taker.operator.world.owner(key) is not None
            assert giver.operator.world.owner(key) is None
            giver.operator.queue.add(key)
            await asyncio.sleep(0.5)
        assert set(default.writes()) == {"patch chatbotclusters chat status"}
        assert await identities(admin, namespace) == before

        await admin.delete(Ref("ConfigMap", namespace, "chat-config"))

        async def healed() -> bool:
            return await admin.get(Ref("ConfigMap", namespace, "chat-config")) is not None

        await until(healed, "the deleted child is made again", 10)


async def test_a_suspended_object_is_not_written_and_goes_on_where_it_was(
    start_operator: StartOperator, admin: Admin, namespace: str
) -> None:
    async with start_operator(namespace) as running:
        await admin.create(cluster(namespace))
        await running.quiet()
        before = await identities(admin, namespace)
        running.forget_writes()
        edit = {"suspend": True, "api": {"pod": {"labels": {"team": "a"}}}}
        await admin.patch(cluster_ref(namespace), {"spec": edit})
        await until(lambda: observed_all(admin, namespace), "the edit is seen", 20)
        deployment = Ref("Deployment", namespace, "chat-ingest")
        await admin.patch(deployment, {"metadata": {"labels": {names.LABEL_NAME: "other"}}})
        await asyncio.sleep(3)
        live = await admin.get(cluster_ref(namespace))
        assert live is not None
        reasons = {one["type"]: one["reason"] for one in live["status"]["conditions"]}
        assert (reasons["Ready"], reasons["Stalled"]) == ("Suspended", "Suspended")
        assert set(running.writes()) == {"patch chatbotclusters chat status"}
        assert await identities(admin, namespace) == before

        running.forget_writes()
        await admin.patch(cluster_ref(namespace), {"spec": {"suspend": False}})
        await running.quiet()
        written = {line for line in running.writes() if "status" not in line}
        # The apply and the PUT that takes back a hand's edit are of one object.
        assert {line.split()[-1] for line in written} == {"chat-api", "chat-config", "chat-ingest"}


async def test_a_suspended_object_can_be_deleted(
    start_operator: StartOperator, admin: Admin, namespace: str
) -> None:
    async with start_operator(namespace) as running:
        await admin.create(cluster(namespace))
        await running.quiet()
        await admin.patch(cluster_ref(namespace), {"spec": {"suspend": True}})
        await until(lambda: observed_all(admin, namespace), "the edit is seen", 20)
        await admin.delete(cluster_ref(namespace))

        async def only_data_is_left() -> bool:
            left = {kind for kind, _ in await identities(admin, namespace)}
            return left <= {"PersistentVolumeClaim", "Secret"}

        await until(only_data_is_left, "garbage collection", 60)
