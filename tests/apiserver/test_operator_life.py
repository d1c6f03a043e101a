"""The life of one object on a real API server: made whole, then left in peace."""

from __future__ import annotations

import asyncio
import base64

import pytest
from fakes.apiserver import CHILD_KINDS, Admin, StartOperator, new_namespace, until
from fakes.objects import cluster, cluster_ref

from chatbot_core import names
from chatbot_core.runtime_config import RetrievalStatus, RuntimeStatus
from chatbot_operator import status
from chatbot_operator.kinds import Ref
from localkube.testserver import LoopbackServer


@pytest.fixture(autouse=True)
def _no_held_back_status(monkeypatch: pytest.MonkeyPatch) -> None:
    """Write at once what else waits for a minute, so that rest is rest."""
    monkeypatch.setattr(status, "QUIET_S", 0.5)


CHILDREN = {
    "ConfigMap": {"chat-config"},
    "Secret": {"chat-admin", "chat-database", "chat-internal", "chat-store-main"},
    "PersistentVolumeClaim": {"chat-database", "chat-store-main"},
    "StatefulSet": {"chat-shard-0", "chat-shard-1"},
}


async def children(admin: Admin, namespace: str) -> dict[str, set[str]]:
    """Return the names of all children by kind, without what Kubernetes itself adds."""
    found: dict[str, set[str]] = {}
    for kind in CHILD_KINDS:
        for item in await admin.list(kind, namespace):
            if names.LABEL_INSTANCE in (item["metadata"].get("labels") or {}):
                found.setdefault(kind, set()).add(item["metadata"]["name"])
    return found


async def test_an_object_gets_all_its_children_and_then_no_write_at_all(
    start_operator: StartOperator, admin: Admin, namespace: str, request: pytest.FixtureRequest
) -> None:
    async with start_operator(namespace) as running:
        await admin.create(cluster(namespace))
        await running.quiet()
        found = await children(admin, namespace)
        assert {kind: found[kind] & ones for kind, ones in CHILDREN.items()} == CHILDREN
        for kind in ("Deployment", "StatefulSet"):
            for item in await admin.list(kind, namespace):
                owners = [
                    entry["manager"]
                    for entry in item["metadata"]["managedFields"]
                    if "f:replicas" in (entry["fieldsV1"].get("f:spec") or {})
                ]
                assert owners == [names.SCALER_MANAGER], item["metadata"]["name"]
        live = await admin.get(cluster_ref(namespace))
        assert live is not None
        assert not {"annotations", "finalizers"} & live["metadata"].keys()
        assert live["status"]["observedGeneration"] == live["metadata"]["generation"]

        running.forget_writes()
        for _ in range(3):
            running.operator.queue.add((namespace, "chat"))
            await asyncio.sleep(0.5)
        await asyncio.sleep(60 if request.config.getoption("--all") else 15)
        assert running.writes() == []


async def test_a_restarted_operator_writes_nothing(
    start_operator: StartOperator, admin: Admin, namespace: str
) -> None:
    async with start_operator(namespace) as running:
        await admin.create(cluster(namespace))
        await running.quiet()
    async with start_operator(namespace) as running:
        await asyncio.sleep(4)
        assert running.writes() == []


async def test_two_objects_in_two_namespaces_do_not_meet(
    start_operator: StartOperator, admin: Admin, server: LoopbackServer, namespace: str
) -> None:
    other = new_namespace(server)
    async with start_operator(namespace, other) as running:
        await admin.create(cluster(namespace))
        await admin.create(cluster(other))
        await running.quiet()
        assert await children(admin, namespace) == await children(admin, other)
        running.forget_writes()
        await admin.delete(cluster_ref(other))

        async def only_data_is_left() -> bool:
            left = await children(admin, other)
            return left.keys() == {"PersistentVolumeClaim", "Secret"}

        await until(only_data_is_left, "garbage collection", 60)
        assert running.writes() == []
        assert CHILDREN["StatefulSet"] <= (await children(admin, namespace))["StatefulSet"]


async def test_a_ready_api_pod_is_asked_with_the_generated_token(
    start_operator: StartOperator, admin: Admin, namespace: str
) -> None:
    async with start_operator(namespace) as running:
        running.runtime.answer = RuntimeStatus(retrieval=RetrievalStatus(documents=1234))
        await admin.create(cluster(namespace))
        await running.quiet(1.0)
        secret = await admin.get(Ref("Secret", namespace, "chat-internal"))
        assert secret is not None
        token = base64.b64decode(secret["data"][names.KEY_TOKEN]).decode()
        assert len(token) == 48
        pod = next(
            item
            for item in await admin.list("Pod", namespace)
            if item["metadata"]["labels"].get(names.LABEL_COMPONENT) == "api"
        )
        assert running.runtime.asked == []
        conditions = [{"type": "Ready", "status": "True"}]
        status = {"podIP": "192.0.2.77", "podIPs": [{"ip": "192.0.2.77"}], "conditions": conditions}
        ref = Ref("Pod", namespace, pod["metadata"]["name"])
        await admin.patch(ref, {"status": status}, "status")

        async def told() -> bool:
            live = await admin.get(cluster_ref(namespace))
            assert live is not None
            documents: int = live["status"]["retrieval"]["documents"]
            return documents == 1200

        await until(told, "the status holds what the runtime counted", 20)
        assert running.runtime.asked[0] == ("192.0.2.77", token, "")
