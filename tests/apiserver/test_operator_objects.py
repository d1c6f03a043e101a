"""Every kind of object that a plan applies, on a real API server that enforces `restricted`."""

from __future__ import annotations

import pytest
from fakes.apiserver import Admin, until
from fakes.managed_fields import managed_fields
from fakes.operator_world import World, golden_spec

from chatbot_core import names
from chatbot_operator import drift, entries
from chatbot_operator.kinds import Ref
from chatbot_operator.kube import KubeClient
from chatbot_operator.model import Apply, CreateSecret, Json, Scale, Step
from localkube.testserver import LoopbackServer

_POLICY = "pod-security.kubernetes.io/enforce"


def _restricted(server: LoopbackServer, name: str) -> str:
    metadata = {"name": name, "labels": {_POLICY: "restricted"}}
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": metadata}
    server.api.create("/api/v1/namespaces", namespace)
    return name


def _know_its_classes(server: LoopbackServer) -> None:
    """Make the classes that the pods of the case name: admission refuses pods of unknown ones."""
    for path, api, kind, name, rest in (
        ("scheduling.k8s.io/v1/priorityclasses", "scheduling.k8s.io/v1", "PriorityClass", "chat",
         {"value": 1000}),
        ("node.k8s.io/v1/runtimeclasses", "node.k8s.io/v1", "RuntimeClass", "gvisor",
         {"handler": "runsc"}),
    ):  # fmt: skip
        body = {"apiVersion": api, "kind": kind, "metadata": {"name": name}, **rest}
        server.api.create(f"/apis/{path}", body)


async def _world(case: str, namespace: str, admin: Admin) -> World:
    """Return a world whose owner exists: the garbage collector removes what an absent one owns."""
    spec = golden_spec(case)
    owner = {"apiVersion": names.API_VERSION, "kind": names.KIND, "spec": spec}
    created = await admin.create(owner | {"metadata": {"name": "docs", "namespace": namespace}})
    world = World(spec=spec, namespace=namespace, uid=created["metadata"]["uid"])
    for wanted in world.plan().wanted_secrets:
        if wanted.name.startswith("our-"):
            world.given_secret(wanted.name, *wanted.keys)
    return world.read_secrets()


def _written(step: Step, namespace: str) -> tuple[Json, str]:
    if isinstance(step, Scale):
        metadata = {"name": step.name, "namespace": namespace}
        spec = {"replicas": step.replicas}
        scaled = {"apiVersion": "apps/v1", "kind": step.kind, "metadata": metadata, "spec": spec}
        return scaled, names.SCALER_MANAGER
    assert isinstance(step, Apply)
    return step.object, names.MANAGER


@pytest.mark.parametrize("case", ["minimal", "everything-set", "s3-documents", "external-database"])
async def test_what_a_plan_applies_is_accepted_owned_and_admitted(
    case: str, server: LoopbackServer, kube: KubeClient, admin: Admin, namespace: str
) -> None:
    namespace = _restricted(server, f"{namespace}-restricted")
    if case == "everything-set":
        _know_its_classes(server)
    world = await _world(case, namespace, admin)
    for step in world.plan().steps:
        if isinstance(step, CreateSecret):
            assert isinstance(await kube.create(step.object), dict), step.name
            continue
        wanted, manager = _written(step, namespace)
        live = await kube.apply(wanted, manager)
        assert isinstance(live, dict), live
        there = entries.child(live)
        if isinstance(step, Apply):
            assert drift.fields(there.managed) == managed_fields(step.object), there.key
            assert drift.owns_all(step.object, drift.fields(there.managed)), there.key
        if there.kind != "Secret":
            world.children[there.key] = there
    world.execute()
    for kind, name in list(world.children):
        live = await kube.get(Ref(kind, namespace, name))
        assert live is not None
        world.children[kind, name] = entries.child(live)
    assert world.plan().steps == ()
    await _pods_are_admitted(world, kube)


async def _pods_are_admitted(world: World, kube: KubeClient) -> None:
    """Wait until the controllers have made every pod: one that is not restricted never comes."""
    replicated = [one for one in world.children.values() if one.replicas is not None]
    job = 1
    wanted = sum(one.replicas or 0 for one in replicated) + job

    async def all_made() -> bool:
        pages = [page async for page in kube.pages("Pod", world.namespace, "")]
        return sum(len(page.items) for page in pages) == wanted

    await until(all_made, f"{wanted} pods", within_s=30)
