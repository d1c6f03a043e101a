"""The stub kubelet under real controllers: what the campaigns take for granted."""

from __future__ import annotations

from typing import Any

from fakes.apiserver import Admin, until

from chatbot_operator.kinds import Object, Ref
from localkube.stubkubelet import NODE, StubKubelet

LABELS = {"app": "x"}


def deployment(namespace: str, image: str) -> Object:
    template = {
        "metadata": {"labels": LABELS},
        "spec": {"containers": [{"name": "main", "image": image}]},
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "x", "namespace": namespace},
        "spec": {"replicas": 3, "selector": {"matchLabels": LABELS}, "template": template},
    }


async def test_a_deployment_becomes_available_and_its_pods_go_within_their_grace(
    admin: Admin, namespace: str, stub_kubelet: StubKubelet
) -> None:
    ref = Ref("Deployment", namespace, "x")
    await admin.create(deployment(namespace, "x:1"))

    async def available() -> bool:
        live = await admin.get(ref)
        assert live is not None
        return live.get("status", {}).get("availableReplicas") == 3

    await until(available, "three available replicas", 20)
    pods = await admin.list("Pod", namespace)
    assert {pod["spec"]["nodeName"] for pod in pods} == {NODE}
    await admin.patch(ref, {"spec": {"replicas": 0}})

    async def gone() -> bool:
        return await admin.list("Pod", namespace) == []

    await until(gone, "the pods are gone", 10)


async def test_an_image_that_is_missing_is_never_pulled(
    admin: Admin, namespace: str, stub_kubelet: StubKubelet
) -> None:
    await admin.create(deployment(namespace, "x:missing"))

    async def refused() -> bool:
        pods = await admin.list("Pod", namespace)
        return len(pods) == 3 and all("containerStatuses" in pod["status"] for pod in pods)

    await until(refused, "every pod says why it waits", 20)
    waiting = [
        pod["status"]["containerStatuses"][0]["state"]["waiting"]["reason"]
        for pod in await admin.list("Pod", namespace)
    ]
    assert waiting == ["ImagePullBackOff"] * 3


async def test_a_job_completes(admin: Admin, namespace: str, stub_kubelet: StubKubelet) -> None:
    containers = [{"name": "main", "image": "x:1"}]
    template = {"spec": {"restartPolicy": "Never", "containers": containers}}
    await admin.create(
        {
            "apiVersion": "batch/v1",
            "kind": "Job",
            "metadata": {"name": "x", "namespace": namespace},
            "spec": {"template": template},
        }
    )

    async def completed() -> bool:
        live = await admin.get(Ref("Job", namespace, "x"))
        assert live is not None
        return live.get("status", {}).get("succeeded") == 1

    await until(completed, "the Job has succeeded", 20)


async def test_a_claim_is_bound_and_grows(
    admin: Admin, namespace: str, stub_kubelet: StubKubelet
) -> None:
    ref = Ref("PersistentVolumeClaim", namespace, "x")

    async def has(storage: str) -> bool:
        live: dict[str, Any] = await admin.get(ref) or {}
        status = live.get("status", {})
        return status.get("phase") == "Bound" and status["capacity"] == {"storage": storage}

    def asked(storage: str) -> Object:
        return {"resources": {"requests": {"storage": storage}}}

    await admin.create(
        {
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "metadata": {"name": "x", "namespace": namespace},
            "spec": {"accessModes": ["ReadWriteOnce"], **asked("1Gi")},
        }
    )
    await until(lambda: has("1Gi"), "the claim is bound", 10)
    await admin.patch(ref, {"spec": asked("2Gi")})
    await until(lambda: has("2Gi"), "the claim has grown", 10)
