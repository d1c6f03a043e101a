"""A cluster as the pure half of the operator sees it: what a plan applies becomes children."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml
from fakes.managed_fields import managed_fields

from chatbot_core import names
from chatbot_core.runtime_config import (
    Member,
    ModelStatus,
    RetrievalStatus,
    RuntimeConfig,
    RuntimeStatus,
    SelfTestResult,
)
from chatbot_operator.desired import config
from chatbot_operator.entries import listed_stores
from chatbot_operator.model import (
    Apply,
    Autoscaler,
    Child,
    ChildKey,
    CreateSecret,
    Delete,
    Fact,
    Json,
    Observed,
    OperatorSettings,
    Owner,
    Plan,
    Pod,
    Refusal,
    Scale,
    Secret,
    SetFinalizer,
)
from chatbot_operator.plan import plan

NOW_S = 1_790_000_000.0
UID = "0c0ffee0-0000-4000-8000-000000000001"
SETTINGS = OperatorSettings(
    runtime_image="registry.example/chatbot-runtime:0.1.0",
    runtime_version="0.1.0",
    database_image="registry.example/postgres:18",
    store_image="registry.example/versitygw:1.8.0",
    ollama_image="registry.example/ollama:0.9.6",
)
MINIMAL: Json = {"inference": {"model": "smollm2:135m"}}

_GOLDEN = Path(__file__).parents[1] / "golden"


def golden_spec(case: str) -> Json:
    """Return the spec of a golden case."""
    spec: Json = yaml.safe_load((_GOLDEN / case / "spec.yaml").read_text())
    return spec


def child_of(desired: Json, uid: str, before: Child | None = None) -> Child:
    """Return what a watch shows of an object right after its apply."""
    metadata = desired["metadata"]
    references = metadata.get("ownerReferences", [])
    base = before or Child(kind=desired["kind"], name=metadata["name"], uid=uid)
    kind = desired["kind"]
    specific: dict[str, Any] = {}
    if kind == "ConfigMap":
        specific["choice"] = desired["data"][names.CHOICE_KEY]
        specific["stores"] = listed_stores(desired["data"][names.CONFIG_KEY])
    if kind == "ServiceAccount":
        specific["choice"] = desired["metadata"]["annotations"][names.ANNOTATION_CHOICE]
    if kind == "PersistentVolumeClaim":
        specific["requested"] = desired["spec"]["resources"]["requests"]["storage"]
        specific["phase"] = base.phase or "Pending"
    if kind in {"Deployment", "StatefulSet"}:
        specific["replicas"] = base.replicas or 1
        specific["generation"] = base.generation + 1
    annotations = metadata.get("annotations", {})
    return replace(
        base,
        applied=annotations.get(names.ANNOTATION_APPLIED, ""),
        template=annotations.get(names.ANNOTATION_TEMPLATE, ""),
        owner_uid=references[0]["uid"] if references else "",
        cluster_uid=annotations.get(names.ANNOTATION_CLUSTER_UID, ""),
        retained_from=metadata["labels"].get(names.LABEL_RETAINED_FROM, ""),
        labels=metadata["labels"],
        managed=text(managed_fields(desired)),
        **specific,
    )


def text(managed: Json) -> str:
    """Return `fieldsV1` as an entry keeps it."""
    return json.dumps(managed, separators=(",", ":"))


def without(managed: str | None, *path: str) -> str:
    """Return our entry of managedFields as it is when somebody took what is below a path."""
    kept = json.loads(managed or "{}")
    below = kept
    for key in path[:-1]:
        below = below[key]
    del below[path[-1]]
    return text(kept)


def applied(plan: Plan) -> list[tuple[str, str, str]]:
    return [
        (step.object["kind"], step.object["metadata"]["name"], step.reason)
        for step in plan.steps
        if isinstance(step, Apply)
    ]


def report(document: RuntimeConfig) -> RuntimeStatus:
    """Return what an API pod tells once every process runs the document and the test passed."""
    hashes = config.acknowledgements(document)
    members = [
        Member(role=role, name=f"{told}-0", config_hash=value, ready=True, endpoint=endpoint)
        for told, value in hashes.items()
        for role, _, endpoint in [told.partition(" ")]
        if role != names.Role.SHARD
    ]
    members += [
        Member(
            role=names.Role.SHARD,
            name=f"shard-{i}-0",
            config_hash=hashes[names.Role.SHARD],
            ready=True,
            shard=i,
        )
        for i in range(document.live.retrieval.shards)
    ]
    return RuntimeStatus(
        schema_version=1,
        members=tuple(members),
        retrieval=RetrievalStatus(generation=1, slot_map_epoch=1, documents=12345, chunks=987),
        model=ModelStatus(name="smollm2:135m", digest="sha256:1", loaded=True),
        stored={},
        self_test=SelfTestResult(wanted=document.live.self_test.wanted, passed=True),
    )


@dataclass(repr=False)
class World:
    """One object and its children; every verb changes the world and returns it."""

    spec: Json = field(default_factory=lambda: dict(MINIMAL))
    name: str = "docs"
    namespace: str = "team-a"
    uid: str = UID
    generation: int = 1
    settings: OperatorSettings = SETTINGS
    status: Json = field(default_factory=lambda: {"observedGeneration": -1})
    children: dict[ChildKey, Child] = field(default_factory=dict)
    objects: dict[ChildKey, Json] = field(default_factory=dict)
    secrets: dict[str, Fact[Secret]] = field(default_factory=dict)
    pods: tuple[Pod, ...] = ()
    autoscalers: tuple[Autoscaler, ...] = ()
    runtime: Fact[RuntimeStatus] = field(default_factory=Fact[RuntimeStatus].unknown)
    refused: dict[ChildKey, Refusal] = field(default_factory=dict)
    settled: bool = True
    complete: bool = True
    deleting: bool = False
    deleting_since_s: float = 0.0
    finalizers: tuple[str, ...] = ()
    status_written_at_s: float | None = None
    now_s: float = NOW_S
    _uids: int = 0

    def observed(self) -> Observed:
        owner = Owner(
            self.namespace,
            self.name,
            self.uid,
            self.generation,
            self.spec,
            self.status,
            self.deleting,
            self.deleting_since_s,
            tuple(self.finalizers),
        )
        return Observed(
            owner=owner,
            settings=self.settings,
            children=dict(self.children),
            children_complete=self.complete,
            settled=self.settled,
            pods=self.pods,
            autoscalers=self.autoscalers,
            secrets=dict(self.secrets),
            runtime=self.runtime,
            refused=dict(self.refused),
            status_written_at_s=self.status_written_at_s,
        )

    def plan(self) -> Plan:
        return plan(self.observed(), self.now_s)

    def read_secrets(self) -> World:
        """Look up every Secret that the plan wants and nobody has looked up yet: absent."""
        for wanted in self.plan().wanted_secrets:
            self.secrets.setdefault(wanted.name, Fact(None, self.now_s, known=True))
        return self

    def given_secret(self, name: str, *keys: str) -> World:
        child = Child("Secret", name, self._uid())
        self.secrets[name] = Fact(Secret(child, frozenset(keys)), self.now_s, known=True)
        return self

    def with_users_secrets(self) -> World:
        """Let every Secret be there that a person makes and the spec names."""
        for wanted in self.plan().wanted_secrets:
            if not wanted.name.startswith(f"{self.name}-"):
                self.given_secret(wanted.name, *wanted.keys)
        return self

    def as_stored(self, stored: Json) -> World:
        """Find the spec, the Secrets and the children that another operator has left behind."""
        self.spec = stored["spec"]
        for name, keys in stored["secrets"].items():
            self.given_secret(name, *keys)
        for found in stored["objects"]:
            self._apply(Apply(0, found, "Stored"))
        for (kind, name), child in list(self.children.items()):
            if kind in {"Deployment", "StatefulSet"}:
                replicas = stored["replicas"][f"{kind}/{name}"]
                self.change(kind, name, replicas=replicas, scaler_owns_replicas=True)
                assert child.owner_uid == self.uid
        return self.rolled_out()

    def execute(self) -> Plan:
        """Do what the plan says, as the API server would answer it."""
        done = self.plan()
        for step in done.steps:
            self._do(step)
        if done.status is not None:
            self.status, self.status_written_at_s = done.status, self.now_s
        return done

    def _do(self, step: object) -> None:
        if isinstance(step, CreateSecret):
            self._create_secret(step)
        elif isinstance(step, Apply):
            self._apply(step)
        elif isinstance(step, Scale):
            key = step.kind, step.name
            grown = self.children[key].replicas != step.replicas
            self.change(
                *key,
                replicas=step.replicas,
                scaler_owns_replicas=True,
                generation=self.children[key].generation + grown,
            )
        elif isinstance(step, Delete):
            del self.children[step.kind, step.name]
        elif isinstance(step, SetFinalizer):
            others = tuple(one for one in self.finalizers if one != names.FINALIZER)
            self.finalizers = (*others, names.FINALIZER) if step.present else others

    def _create_secret(self, step: CreateSecret) -> None:
        recipe = step.recipe
        keys = frozenset(k for k, _ in (*recipe.random, *recipe.fixed, *recipe.templates))
        child = replace(child_of(step.object, self._uid()), managed=None)
        self.secrets[step.name] = Fact(Secret(child, keys), self.now_s, known=True)

    def _apply(self, step: Apply) -> None:
        key = step.object["kind"], step.object["metadata"]["name"]
        if step.heal and step.uid is None and key not in self.children:
            return
        self.objects[key] = step.object
        if key[0] == "Secret":
            secret = self.secrets[key[1]].value
            assert secret is not None
            child = child_of(step.object, secret.child.uid, secret.child)
            self.secrets[key[1]] = Fact(replace(secret, child=child), self.now_s, known=True)
        else:
            self.children[key] = child_of(step.object, self._uid(), self.children.get(key))

    def change(self, kind: str, name: str, **values: Any) -> World:
        self.children[kind, name] = replace(self.children[kind, name], **values)
        return self

    def created(self) -> World:
        """Run the passes that create everything."""
        self.read_secrets().execute()
        return self

    def rolled_out(self) -> World:
        """Let the controllers of Kubernetes finish: pods ready, claims bound, Jobs done."""
        for (kind, name), child in list(self.children.items()):
            if kind in {"Deployment", "StatefulSet"}:
                count = child.replicas or 0
                counts = dict.fromkeys(("current", "ready", "updated", "available"), count)
                self.change(kind, name, observed_generation=child.generation, **counts)
            elif kind == "PersistentVolumeClaim":
                self.change(kind, name, phase="Bound", capacity=child.requested)
            elif kind == "Job":
                self.change(kind, name, succeeded=1)
        return self

    def config(self) -> RuntimeConfig:
        """Return the document that the pods mount."""
        held = self.objects["ConfigMap", names.config_map(self.name)]
        return RuntimeConfig.model_validate_json(held["data"][names.CONFIG_KEY])

    def reporting(self, **changes: Any) -> World:
        """Let an API pod tell that every process runs the current document and the test passed."""
        told = report(self.config())
        self.runtime = Fact(told.model_copy(update=changes), self.now_s, known=True)
        return self

    def ready(self) -> World:
        """Take the object all the way to `Ready`."""
        self.created().rolled_out().reporting().execute()
        assert self.condition("Ready")["status"] == "True", self.status
        return self

    def later(self, seconds: float) -> World:
        self.now_s += seconds
        return self

    def edited(self, spec: Json) -> World:
        self.spec, self.generation = spec, self.generation + 1
        return self

    def execute_and_read(self, kind: str) -> str:
        """Return the message of a condition after one more pass."""
        self.execute()
        message: str = self.condition(kind)["message"]
        return message

    def deleted(self) -> World:
        self.deleting, self.deleting_since_s = True, self.now_s
        return self

    def condition(self, kind: str) -> Json:
        """Return a condition of the written status, {} where it is not there."""
        found = [one for one in self.status.get("conditions", []) if one["type"] == kind]
        return found[0] if found else {}

    def _uid(self) -> str:
        self._uids += 1
        return f"uid-{self._uids}"
