"""Whatever a foreign hand changes or deletes among the children comes back within ten seconds."""

from __future__ import annotations

import json
from typing import Any

import pytest
from fakes.apiserver import Admin, StartOperator, essence, until
from fakes.objects import cluster

from chatbot_core import names
from chatbot_operator import feeders, reconcile
from chatbot_operator.kinds import WATCHED, Object, Ref

HEALS_WITHIN_S = 10.0


@pytest.fixture(autouse=True)
def _secrets_are_looked_at_often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look at Secrets every second: a minute between two looks is no part of a heal."""
    monkeypatch.setattr(feeders, "SECRET_CALM_S", 1.0)
    monkeypatch.setattr(reconcile, "SECRET_CALM_S", 1.0)


def api(namespace: str) -> Ref:
    return Ref("Deployment", namespace, "chat-api")


def label(value: str) -> Object:
    return {"metadata": {"labels": {names.LABEL_COMPONENT: value}}}


def replaced(path: str, value: Any) -> list[Object]:
    return [{"op": "replace", "path": path, "value": value}]


_CONTAINER = "/spec/template/spec/containers/0"
EDITS: dict[str, tuple[str, str, Any]] = {
    "label of a ServiceAccount": ("ServiceAccount", "", label("edited")),
    "label of a ConfigMap": ("ConfigMap", "chat-config", label("edited")),
    "label of a claim": ("PersistentVolumeClaim", "chat-database", label("edited")),
    "label of a Service": ("Service", "chat-api", label("edited")),
    "our own mark": (
        "Service",
        "chat-api",
        {"metadata": {"labels": {names.LABEL_MANAGED_BY: "x"}}},
    ),
    "the instance": (
        "ConfigMap",
        "chat-config",
        {"metadata": {"labels": {names.LABEL_INSTANCE: "x"}}},
    ),
    "data": ("ConfigMap", "chat-config", {"data": {names.CONFIG_KEY: "{}"}}),
    "data removed": ("ConfigMap", "chat-config", {"data": {names.CONFIG_KEY: None}}),
    "the applied hash": (
        "Service",
        "chat-api",
        {"metadata": {"annotations": {names.ANNOTATION_APPLIED: "v1:0"}}},
    ),
    "the choice": (
        "ConfigMap",
        "chat-config",
        {
            "data": {
                names.CHOICE_KEY: json.dumps(
                    dict.fromkeys(("version", "runtime", "database", "store", "ollama"), "evil:1")
                )
            }
        },
    ),
    "label of the migration Job": ("Job", "", label("edited")),
    "label of a Secret": ("Secret", "chat-internal", label("edited")),
    "label of a Secret that opens data": ("Secret", "chat-database", label("edited")),
    "port number": ("Service", "chat-api", replaced("/spec/ports/0/port", 8099)),
    "target port": ("Service", "chat-api", replaced("/spec/ports/0/targetPort", 9)),
    "selector": ("Service", "chat-api", {"spec": {"selector": {names.LABEL_COMPONENT: "x"}}}),
    "image of a Deployment": ("Deployment", "chat-api", replaced(f"{_CONTAINER}/image", "evil:1")),
    "image of a StatefulSet": (
        "StatefulSet",
        "chat-shard-0",
        replaced(f"{_CONTAINER}/image", "evil:1"),
    ),
    "environment": ("Deployment", "chat-api", replaced(f"{_CONTAINER}/env/0/name", "EVIL")),
    "a container's port": (
        "Deployment",
        "chat-api",
        replaced(f"{_CONTAINER}/ports/0/containerPort", 1234),
    ),
    "replicas of a Deployment": ("Deployment", "chat-api", {"spec": {"replicas": 5}}),
    "replicas of a StatefulSet": ("StatefulSet", "chat-shard-0", {"spec": {"replicas": 0}}),
}


async def first(admin: Admin, kind: str, namespace: str, name: str) -> Ref:
    """Return the named child, or of a kind with one child that one."""
    for item in await admin.list(kind, namespace):
        meta = item["metadata"]
        if names.LABEL_INSTANCE in (meta.get("labels") or {}) and name in {"", meta["name"]}:
            return Ref(kind, namespace, meta["name"])
    raise AssertionError(f"no {kind} {name}")


async def test_every_foreign_edit_is_taken_back(
    start_operator: StartOperator, admin: Admin, namespace: str
) -> None:
    async with start_operator(namespace) as running:
        await admin.create(cluster(namespace))
        await running.quiet(1.0)
        for what, (kind, name, patch) in EDITS.items():
            ref = await first(admin, kind, namespace, name)
            before = await admin.get(ref)
            assert before is not None
            edited = await admin.patch(ref, patch)
            assert essence(edited) != essence(before), what

            async def healed(ref: Ref = ref, before: Object = before) -> bool:
                live = await admin.get(ref)
                return live is not None and essence(live) == essence(before)

            await until(healed, what, HEALS_WITHIN_S)

            async def tidy(ref: Ref = ref) -> bool:
                live = await admin.get(ref)
                entries = live["metadata"]["managedFields"] if live else []
                mine = {(entry["manager"], entry["operation"]) for entry in entries}
                # A Secret's own data came with a POST.
                return ref.kind == "Secret" or (names.MANAGER, "Update") not in mine

            await until(tidy, f"{what}: no trace of a PUT in managedFields")
        await running.quiet(1.0)
        running.forget_writes()
        running.operator.queue.add((namespace, "chat"))
        with pytest.raises(AssertionError, match="it never rests: \\[\\]"):
            await running.quiet(1.0, within_s=2.0)


async def test_every_deleted_child_is_made_again(
    start_operator: StartOperator, admin: Admin, namespace: str
) -> None:
    async with start_operator(namespace) as running:
        await admin.create(cluster(namespace))
        await running.quiet(1.0)
        victims = {
            Ref(kind, namespace, item["metadata"]["name"]): item["metadata"]["uid"]
            for kind in (*WATCHED, "Secret")
            # A claim in use waits for its pods, a migration for a database that nobody runs here.
            if kind not in {"Pod", "PersistentVolumeClaim", "Job"}
            for item in await admin.list(kind, namespace)
            if names.LABEL_INSTANCE in (item["metadata"].get("labels") or {})
        }
        kinds = {*WATCHED, "Secret"} - {"Pod", "PersistentVolumeClaim", "Job"}
        assert {ref.kind for ref in victims} == kinds
        for ref in victims:
            await admin.delete(ref)

        async def all_new() -> bool:
            for ref, uid in victims.items():
                live = await admin.get(ref)
                if live is None or live["metadata"]["uid"] == uid:
                    return False
            return True

        await until(all_new, f"{sorted(map(str, victims))}", HEALS_WITHIN_S)
