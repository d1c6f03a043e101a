"""Foreign hands that no heal can answer at once: each is named, and cured when it is taken away."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from fakes.apiserver import Admin, StartOperator, until
from fakes.objects import cluster, cluster_ref

from chatbot_core import names
from chatbot_operator import feeders
from chatbot_operator.kinds import Object, Ref, collection_path, resource
from chatbot_operator.kube import KubeClient, WatchEvent, WatchExpiredError

API = "chat-api"
KEDA = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {"name": "scaledobjects.keda.sh"},
    "spec": {
        "group": "keda.sh",
        "scope": "Namespaced",
        "names": {"kind": "ScaledObject", "plural": "scaledobjects", "singular": "scaledobject"},
        "versions": [
            {
                "name": "v1alpha1",
                "served": True,
                "storage": True,
                "schema": {
                    "openAPIV3Schema": {
                        "type": "object",
                        "x-kubernetes-preserve-unknown-fields": True,
                    }
                },
            }
        ],
    },
}


async def condition(admin: Admin, namespace: str, kind: str) -> Object:
    """Return a condition of the object's status, {} where it is not there."""
    live = await admin.get(cluster_ref(namespace))
    conditions = ((live or {}).get("status") or {}).get("conditions") or []
    found: Object = next((one for one in conditions if one["type"] == kind), {})
    return found


async def until_said(admin: Admin, namespace: str, kind: str, words: str) -> None:
    async def said() -> bool:
        return words in (await condition(admin, namespace, kind)).get("message", "")

    await until(said, f"{kind} says {words}", 20)


async def until_silent(admin: Admin, namespace: str, kind: str, words: str) -> None:
    async def silent() -> bool:
        return words not in (await condition(admin, namespace, kind)).get("message", "")

    await until(silent, f"{kind} no longer says {words}", 20)


def autoscaler(namespace: str) -> Object:
    return {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": "more", "namespace": namespace},
        "spec": {
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": API},
            "maxReplicas": 9,
        },
    }


async def test_an_autoscaler_is_named_as_long_as_it_is_there(
    start_operator: StartOperator, admin: Admin, namespace: str
) -> None:
    kind = "ScalingContested"
    async with start_operator(namespace) as running:
        await admin.create(cluster(namespace))
        await running.quiet(1.0)
        await admin.create(autoscaler(namespace))
        await until_said(admin, namespace, kind, f"HorizontalPodAutoscaler more (Deployment {API})")
        await admin.delete(Ref("HorizontalPodAutoscaler", namespace, "more"))

        async def gone() -> bool:
            return await condition(admin, namespace, kind) == {}

        await until(gone, "the condition is gone", 20)


async def test_a_kind_that_is_installed_later_is_found(
    start_operator: StartOperator, admin: Admin, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feeders, "ABSENT_S", 2.0)
    definitions = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
    async with start_operator(namespace) as running:
        await admin.create(cluster(namespace))
        await running.quiet(1.0)
        (await admin.http.post(definitions, json=KEDA)).raise_for_status()
        try:
            more = autoscaler(namespace)
            more |= {"kind": "ScaledObject", "apiVersion": resource("ScaledObject").api_version}
            more["spec"] = {"scaleTargetRef": {"name": API}}

            async def served() -> bool:
                path = collection_path("ScaledObject", namespace)
                return (await admin.http.post(path, json=more)).status_code in {201, 409}

            await until(served, "the kind is served")
            await until_said(admin, namespace, "ScalingContested", "ScaledObject more")
        finally:
            name = KEDA["metadata"]["name"]  # type: ignore[index] # a literal above
            await admin.http.delete(f"{definitions}/{name}")

        async def gone() -> bool:
            return await condition(admin, namespace, "ScalingContested") == {}

        # Without its definition nobody tells that the object is gone but the end of the watch.
        await until(gone, "the condition goes with the kind", 90)


async def test_a_child_that_another_controller_took_is_named_and_left_alone(
    start_operator: StartOperator, admin: Admin, namespace: str
) -> None:
    ref = Ref("ConfigMap", namespace, "chat-config")
    theirs = await admin.create(
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "theirs", "namespace": namespace},
            "spec": {"ports": [{"port": 1}]},
        }
    )
    async with start_operator(namespace) as running:
        await admin.create(cluster(namespace))
        await running.quiet(1.0)
        before = await admin.get(ref)
        assert before is not None
        reference = {
            "apiVersion": "v1",
            "kind": "Service",
            "name": "theirs",
            "uid": theirs["metadata"]["uid"],
            "controller": True,
        }
        taken = await admin.patch(ref, {"metadata": {"ownerReferences": [reference]}})
        await until_said(admin, namespace, "Stalled", "ConfigMap chat-config belongs to Service")
        assert await admin.get(ref) == taken

        await admin.patch(ref, {"metadata": {"ownerReferences": None}})

        async def ours() -> bool:
            live = await admin.get(ref)
            assert live is not None
            references = live["metadata"].get("ownerReferences")
            return bool(references == before["metadata"]["ownerReferences"])

        await until(ours, "an orphaned child is ours again")
        await until_silent(admin, namespace, "Stalled", "chat-config")


async def test_a_name_that_is_taken_by_something_with_our_labels_is_named(
    start_operator: StartOperator, admin: Admin, namespace: str
) -> None:
    labels = {
        names.LABEL_NAME: names.APP_NAME,
        names.LABEL_INSTANCE: "chat",
        names.LABEL_COMPONENT: "api",
        names.LABEL_MANAGED_BY: names.MANAGER,
    }
    theirs = await admin.create(
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": API, "namespace": namespace, "labels": labels},
            "spec": {"ports": [{"port": 1}]},
        }
    )
    async with start_operator(namespace):
        await admin.create(cluster(namespace))
        await until_said(admin, namespace, "Stalled", f"Service {API} exists and is not ours")
        assert await admin.get(Ref("Service", namespace, API)) == theirs


async def test_a_quota_that_is_exceeded_is_named_until_it_is_raised(
    start_operator: StartOperator, admin: Admin, namespace: str
) -> None:
    path = f"/api/v1/namespaces/{namespace}/resourcequotas"
    quota = {"metadata": {"name": "few"}, "spec": {"hard": {"count/services": "1"}}}
    (await admin.http.post(path, json=quota)).raise_for_status()

    async def counted() -> bool:
        return "used" in (await admin.http.get(f"{path}/few")).json().get("status", {})

    await until(counted, "the quota is counted", 30)
    async with start_operator(namespace):
        await admin.create(cluster(namespace))
        await until_said(admin, namespace, "Stalled", "exceeded quota: few")
        (await admin.http.delete(f"{path}/few")).raise_for_status()
        await until_silent(admin, namespace, "Stalled", "exceeded quota")

        async def all_there() -> bool:
            return await admin.get(Ref("Service", namespace, API)) is not None

        await until(all_there, "the Services that were refused", 20)


async def test_pods_that_a_quota_refuses_are_named(
    start_operator: StartOperator, admin: Admin, namespace: str
) -> None:
    path = f"/api/v1/namespaces/{namespace}/resourcequotas"
    quota = {"metadata": {"name": "none"}, "spec": {"hard": {"pods": "0"}}}
    (await admin.http.post(path, json=quota)).raise_for_status()
    async with start_operator(namespace):
        await admin.create(cluster(namespace))
        await until_said(admin, namespace, "Stalled", "exceeded quota: none")
        said = await condition(admin, namespace, "Stalled")
        assert (said["reason"], said["message"].split(":")[0]) == (
            "PodsRefused",
            "Deployment chat-store-main",
        )


class Gap:
    """Watches of the operator that say nothing while `open`, and are told 410 afterwards."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.open = False
        self._closed = asyncio.Event()
        self._watch = KubeClient.watch
        gap = self

        async def watch(
            client: KubeClient, kind: str, namespace: str, selector: str, version: str
        ) -> AsyncIterator[WatchEvent]:
            async for event in gap._watch(client, kind, namespace, selector, version):
                if gap.open:
                    await gap._closed.wait()
                    raise WatchExpiredError("the gap")
                yield event

        monkeypatch.setattr(KubeClient, "watch", watch)

    def close(self) -> None:
        self.open = False
        self._closed.set()


async def test_a_child_deleted_in_a_gap_is_made_again_and_an_owner_deleted_in_one_is_not(
    start_operator: StartOperator, admin: Admin, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    gap = Gap(monkeypatch)
    config, service = (
        Ref(kind, namespace, name)
        for kind, name in (("ConfigMap", "chat-config"), ("Service", API))
    )
    async with start_operator(namespace) as running:
        await admin.create(cluster(namespace))
        await running.quiet(1.0)
        gap.open = True
        await admin.delete(config)
        await admin.delete(service)
        await asyncio.sleep(2)
        assert await admin.get(config) is None
        gap.close()

        async def again() -> bool:
            return None not in (await admin.get(config), await admin.get(service))

        await until(again, "both children")
        await running.quiet(1.0)

    gap = Gap(monkeypatch)
    async with start_operator(namespace) as running:
        await asyncio.sleep(1)
        running.operator.world.owners.vanished = lambda key, version: None  # type: ignore[method-assign] # the lost event
        running.forget_writes()
        gap.open = True
        await admin.delete(cluster_ref(namespace))

        async def collected() -> bool:
            return await admin.get(config) is None

        await until(collected, "garbage collection", 60)
        gap.close()
        await asyncio.sleep(3)
        # The server refuses the status of an object that is gone; nothing else was tried.
        assert set(running.writes()) <= {"patch chatbotclusters chat status"}
        assert await admin.get(config) is None
