"""What every builder needs: the object's identity, its spec, the choice made for it, metadata.

Builders return whole objects as dicts that nobody changes afterwards. A pod template depends on
the spec and on the `Choice` only, never on the operator that runs now.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from pydantic import BaseModel, ConfigDict

from chatbot_core import names
from chatbot_core.runtime_config import Boot, digest
from chatbot_core.v1alpha1 import ChatbotClusterSpec
from chatbot_core.v1alpha1.release import Version
from chatbot_operator.model import ChildKey, Json


class Rank(IntEnum):
    """Order of steps; an error ends the pass after its rank."""

    CONFIG = 0
    STORAGE = 1
    DATABASE = 2
    DOCUMENTS = 3
    MIGRATION = 4
    SHARDS = 5
    INFERENCE = 6
    INGEST = 7
    API = 8
    PRUNE = 9


class Choice(BaseModel):
    """Version and images of one object, chosen at first sight and kept in its ConfigMap.

    `runtime` is the operator's image of the version; `image` the one that runs, where `spec.image`
    names another. The ServiceAccount carries a copy: an operator of another version that heals a
    deleted or edited ConfigMap would otherwise choose anew, and roll every pod.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    version: Version
    runtime: str
    database: str
    store: str
    ollama: str
    image: str = ""

    @property
    def running(self) -> str:
        """Return the image of every role of the runtime."""
        return self.image or self.runtime

    def to_json(self) -> str:
        """Return it as it is kept."""
        return self.model_dump_json(exclude_defaults=True)


@dataclass(frozen=True, slots=True)
class Desired:
    """One child as it shall be.

    `replicas` is what the scaler sends, None where the kind has none. `secrets` are the names of
    the Secrets without which its pods cannot start. `once`: created when absent, never changed.
    """

    rank: Rank
    object: Json
    replicas: int | None = None
    secrets: tuple[str, ...] = ()
    once: bool = False

    @property
    def key(self) -> ChildKey:
        """Return kind and name."""
        return self.object["kind"], self.object["metadata"]["name"]

    @property
    def template(self) -> Json | None:
        """Return the pod template, None where the kind has none."""
        template: Json | None = self.object.get("spec", {}).get("template")
        return template


@dataclass(frozen=True, slots=True)
class Context:
    """One ChatbotCluster, as the builders see it."""

    namespace: str
    cluster: str
    uid: str
    spec: ChatbotClusterSpec
    choice: Choice
    boot: Boot
    pull_policy: str

    @property
    def runtime_pull_policy(self) -> str:
        """Return when nodes pull the image of the runtime."""
        stated = self.spec.image and self.spec.image.pull_policy
        return stated or self.pull_policy

    def host(self, service: str) -> str:
        """Return the name under which a Service of this object resolves in the cluster."""
        return f"{service}.{self.namespace}.svc"


def selector(ctx: Context, component: str) -> dict[str, str]:
    """Return the immutable labels that select a tier's pods: exactly these three, for ever."""
    return {
        names.LABEL_NAME: names.APP_NAME,
        names.LABEL_INSTANCE: ctx.cluster,
        names.LABEL_COMPONENT: str(component),
    }


def pod_labels(ctx: Context, component: str) -> dict[str, str]:
    """Return the labels of a pod template; the version is not among them, it would roll pods."""
    return {**selector(ctx, component), names.LABEL_MANAGED_BY: names.MANAGER}


def owner_reference(ctx: Context) -> Json:
    """Return the reference that lets the garbage collector remove a child with its owner."""
    return {
        "apiVersion": names.API_VERSION,
        "kind": names.KIND,
        "name": ctx.cluster,
        "uid": ctx.uid,
        "controller": True,
        "blockOwnerDeletion": False,
    }


def owned(ctx: Context, name: str, component: str) -> Json:
    """Return the metadata of a child that goes with its owner."""
    return {
        "name": name,
        "namespace": ctx.namespace,
        "labels": {**pod_labels(ctx, component), names.LABEL_VERSION: ctx.choice.version},
        "ownerReferences": [owner_reference(ctx)],
    }


def lasting(ctx: Context, name: str, component: str) -> Json:
    """Return the metadata of what holds data or opens it: owned only under policy Delete.

    The label stays under both policies, so that an edit of the policy touches the owner
    reference alone, and a later object of this name can take it over.
    """
    metadata: Json = {
        "name": name,
        "namespace": ctx.namespace,
        "labels": {
            **pod_labels(ctx, component),
            names.LABEL_RETAINED_FROM: names.retained_from(ctx.namespace, ctx.cluster),
        },
        "annotations": {names.ANNOTATION_CLUSTER_UID: ctx.uid},
    }
    if ctx.spec.deletion_policy == "Delete":
        metadata["ownerReferences"] = [owner_reference(ctx)]
    return metadata


def sealed(desired: Json) -> Json:
    """Return the object with the annotation that says what was applied: `v1:` and its hash."""
    metadata = desired["metadata"]
    annotations = {
        **metadata.get("annotations", {}),
        names.ANNOTATION_APPLIED: digest(desired),
    }
    return {**desired, "metadata": {**metadata, "annotations": annotations}}


def marked(workload: Json) -> Json:
    """Return a workload with the annotation that holds the hash of its pod template."""
    metadata = workload["metadata"]
    annotations = {
        **metadata.get("annotations", {}),
        names.ANNOTATION_TEMPLATE: digest(workload["spec"]["template"]),
    }
    return {**workload, "metadata": {**metadata, "annotations": annotations}}


def applied_hash(desired: Json) -> str:
    """Return the hash that a sealed object carries."""
    value: str = desired["metadata"]["annotations"][names.ANNOTATION_APPLIED]
    return value


def unmarked_hash(sealed_workload: Json) -> str:
    """Return what the hash of a sealed workload would be without the mark of its template."""
    metadata = dict(sealed_workload["metadata"])
    marks = {names.ANNOTATION_APPLIED, names.ANNOTATION_TEMPLATE}
    rest = {key: value for key, value in metadata.pop("annotations").items() if key not in marks}
    metadata |= {"annotations": rest} if rest else {}
    return digest({**sealed_workload, "metadata": metadata})


def service(ctx: Context, name: str, component: str, ports: dict[str, tuple[int, int]]) -> Json:
    """Return a ClusterIP Service; `ports` maps a name to (port, container port)."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": owned(ctx, name, component),
        "spec": {
            "type": "ClusterIP",
            "selector": selector(ctx, component),
            "ports": [
                {"name": port_name, "port": port, "targetPort": target, "protocol": "TCP"}
                for port_name, (port, target) in ports.items()
            ],
        },
    }


def claim(ctx: Context, name: str, component: str, size: str, storage_class: str | None) -> Json:
    """Return a ReadWriteOnce claim, applied by name so that growth is an ordinary apply."""
    spec: Json = {
        "accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": size}},
    }
    if storage_class is not None:
        spec["storageClassName"] = storage_class
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": lasting(ctx, name, component),
        "spec": spec,
    }
