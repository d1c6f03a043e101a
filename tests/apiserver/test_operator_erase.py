"""The end of an object that left something outside, with the real garbage collector."""

from __future__ import annotations

import asyncio

import pytest
from fakes.apiserver import CHILD_KINDS, Admin, Running, StartOperator, until
from fakes.objects import cluster, cluster_ref

from chatbot_core import names
from chatbot_operator.kinds import Object, Ref, collection_path
from localkube.testserver import LoopbackServer

OUTSIDE = {
    "deletionPolicy": "Delete",
    "documents": {
        "stores": [
            {
                "name": "main",
                "s3": {"bucket": "team", "prefix": "chat/", "credentialsSecretRef": {"name": "s3"}},
            }
        ]
    },
}


def users_secret(namespace: str) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "s3", "namespace": namespace},
        "stringData": {"accessKeyId": "a", "secretAccessKey": "b"},
    }


def job(namespace: str) -> Ref:
    return Ref("Job", namespace, "chat-erase")


async def made(admin: Admin, running: Running, namespace: str) -> None:
    await admin.create(users_secret(namespace))
    await admin.create(cluster(namespace, **OUTSIDE))
    await running.quiet(1.0)
    live = await admin.get(cluster_ref(namespace))
    assert live is not None
    assert live["metadata"]["finalizers"] == [names.FINALIZER]
    assert "annotations" not in live["metadata"]
    assert "labels" not in live["metadata"]


async def ours(admin: Admin, namespace: str) -> set[str]:
    """Return every child that is left, but what Kubernetes itself makes of them."""
    return {
        f"{kind}/{item['metadata']['name']}"
        for kind in CHILD_KINDS
        for item in await admin.list(kind, namespace)
        if names.LABEL_INSTANCE in (item["metadata"].get("labels") or {})
    }


async def reason(admin: Admin, namespace: str) -> str:
    live = await admin.get(cluster_ref(namespace))
    conditions = {one["type"]: one for one in ((live or {}).get("status") or {})["conditions"]}
    return str(conditions["Ready"]["reason"])


async def until_reason(admin: Admin, namespace: str, wanted: str) -> None:
    async def said() -> bool:
        return await reason(admin, namespace) == wanted

    await until(said, f"Ready says {wanted}", 90)


async def until_gone(admin: Admin, namespace: str) -> None:
    async def gone() -> bool:
        return await admin.get(cluster_ref(namespace)) is None

    await until(gone, "the object is gone", 30)


async def until_job(admin: Admin, namespace: str) -> None:
    async def there() -> bool:
        return await admin.get(job(namespace)) is not None

    await until(there, "the erase Job", 30)


async def the_pod_succeeds(admin: Admin, namespace: str) -> None:
    """Let the Job's pod end well, as a kubelet would tell."""

    async def pod() -> bool:
        for item in await admin.list("Pod", namespace):
            ref = Ref("Pod", namespace, item["metadata"]["name"])
            labels = item["metadata"]["labels"]
            if labels[names.LABEL_COMPONENT] == "erase":
                await admin.patch(ref, {"status": {"phase": "Succeeded"}}, "status")
                return True
        return False

    await until(pod, "the pod of the erase Job", 20)


@pytest.mark.parametrize("cascade", ["Background", "Foreground"])
async def test_what_writes_goes_first_then_the_job_erases_then_nothing_is_left(
    start_operator: StartOperator, admin: Admin, namespace: str, cascade: str
) -> None:
    async with start_operator(namespace) as running:
        await made(admin, running, namespace)
        running.forget_writes()
        await admin.delete(cluster_ref(namespace), cascade)
        await until_job(admin, namespace)
        kept = await ours(admin, namespace)
        assert {"Job/chat-erase", "ConfigMap/chat-config", "ServiceAccount/chat-runtime"} <= kept
        assert not {one for one in kept if one.startswith(("Deployment/", "StatefulSet/chat-s"))}
        await until_reason(admin, namespace, "Erasing")
        if cascade == "Background":
            steps = [one for one in running.writes() if not one.endswith(" status")]
            assert steps[0] == "delete deployments chat-api"
            assert steps[-1] == "patch jobs chat-erase"
        await the_pod_succeeds(admin, namespace)
        await until_gone(admin, namespace)

        async def nothing() -> bool:
            return not await ours(admin, namespace)

        await until(nothing, "the garbage collector takes the rest", 60)
        assert await admin.get(Ref("Secret", namespace, "s3")) is not None
        told = {one["reason"]: one["note"] for one in await admin.list("Event", namespace)}
        assert told["Erased"] == "objects in s3://team/chat/ (store main)"


async def test_an_edit_to_retain_ends_an_erase_that_hangs_and_keeps_the_data(
    start_operator: StartOperator, admin: Admin, namespace: str
) -> None:
    async with start_operator(namespace) as running:
        await made(admin, running, namespace)
        await admin.delete(Ref("Secret", namespace, "s3"))
        await admin.delete(cluster_ref(namespace))
        await until_job(admin, namespace)
        await until_reason(admin, namespace, "WaitingForSecret")
        await admin.patch(cluster_ref(namespace), {"spec": {"deletionPolicy": "Retain"}})
        await until_gone(admin, namespace)

        async def only_data() -> bool:
            return await ours(admin, namespace) == {
                "PersistentVolumeClaim/chat-database",
                "Secret/chat-database",
                "Secret/chat-admin",
            }

        await until(only_data, "claims and their Secrets stay", 60)
        await asyncio.sleep(3)
        assert await only_data()


async def test_a_finalizer_that_is_removed_by_hand_lets_the_object_go(
    start_operator: StartOperator, admin: Admin, namespace: str
) -> None:
    async with start_operator(namespace) as running:
        await made(admin, running, namespace)
        await admin.delete(cluster_ref(namespace))
        await until_job(admin, namespace)
        await admin.patch(cluster_ref(namespace), {"metadata": {"finalizers": None}})
        await until_gone(admin, namespace)

        async def nothing() -> bool:
            return not await ours(admin, namespace)

        await until(nothing, "the garbage collector takes the rest", 60)
        running.forget_writes()
        await asyncio.sleep(3)
        assert running.writes() == []


async def test_an_orphaned_object_erases_nothing_and_its_children_stay(
    start_operator: StartOperator, admin: Admin, namespace: str
) -> None:
    async with start_operator(namespace) as running:
        await made(admin, running, namespace)
        before = await ours(admin, namespace)
        await admin.delete(cluster_ref(namespace), "Orphan")
        await until_gone(admin, namespace)
        await asyncio.sleep(3)
        assert await ours(admin, namespace) == before
        told = {one["reason"]: one["note"] for one in await admin.list("Event", namespace)}
        assert "nothing erased: objects in s3://team/chat/" in told["LeftBehind"]


async def test_a_namespace_that_is_deleted_does_not_hang_and_what_is_left_is_told(
    start_operator: StartOperator, admin: Admin, server: LoopbackServer, namespace: str
) -> None:
    async with start_operator(namespace) as running:
        await made(admin, running, namespace)
        answer = await admin.http.delete(f"/api/v1/namespaces/{namespace}")
        answer.raise_for_status()
        await until_gone(admin, namespace)

        async def namespace_gone() -> bool:
            return (await admin.http.get(f"/api/v1/namespaces/{namespace}")).status_code == 404

        await until(namespace_gone, "the namespace is gone", 60)
        notes = [
            one["note"]
            for one in (await admin.http.get(collection_path("Event", "default"))).json()["items"]
            if one["reason"] == "LeftBehind" and one["regarding"]["name"] == namespace
        ]
        assert len(notes) == 1, notes
        assert "left behind: objects in s3://team/chat/" in notes[0]


async def test_a_restart_in_the_middle_of_an_erase_finishes_it(
    start_operator: StartOperator, admin: Admin, namespace: str
) -> None:
    async with start_operator(namespace) as running:
        await made(admin, running, namespace)
        await admin.delete(cluster_ref(namespace))
    async with start_operator(namespace):
        await until_job(admin, namespace)
    await the_pod_succeeds(admin, namespace)
    async with start_operator(namespace):
        await until_gone(admin, namespace)
