"""The kinds this operator reads and writes, with their paths: a static table, no discovery."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from chatbot_core import names
from chatbot_core.errors import Bug

Object = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Ref:
    """Which object: kind, namespace and name."""

    kind: str
    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind} {self.namespace}/{self.name}"


@dataclass(frozen=True, slots=True)
class Resource:
    """Where a kind lives in the API."""

    api_version: str
    plural: str


RESOURCES: Final[dict[str, Resource]] = {
    names.KIND: Resource(names.API_VERSION, names.PLURAL),
    "ServiceAccount": Resource("v1", "serviceaccounts"),
    "ConfigMap": Resource("v1", "configmaps"),
    "Secret": Resource("v1", "secrets"),
    "Service": Resource("v1", "services"),
    "PersistentVolumeClaim": Resource("v1", "persistentvolumeclaims"),
    "Pod": Resource("v1", "pods"),
    "StatefulSet": Resource("apps/v1", "statefulsets"),
    "Deployment": Resource("apps/v1", "deployments"),
    "Job": Resource("batch/v1", "jobs"),
    "PodDisruptionBudget": Resource("policy/v1", "poddisruptionbudgets"),
    "HorizontalPodAutoscaler": Resource("autoscaling/v2", "horizontalpodautoscalers"),
    "ScaledObject": Resource("keda.sh/v1alpha1", "scaledobjects"),
    "Event": Resource("events.k8s.io/v1", "events"),
    "Lease": Resource("coordination.k8s.io/v1", "leases"),
}

#: Kinds whose children are listed and watched. Secrets are read by name only: no list right.
WATCHED: Final = (
    "ServiceAccount",
    "ConfigMap",
    "Service",
    "PersistentVolumeClaim",
    "StatefulSet",
    "Deployment",
    "Job",
    "PodDisruptionBudget",
    "Pod",
)


#: Kinds of others that scale workloads; a server need not know them, nor let us read them.
AUTOSCALERS: Final = ("HorizontalPodAutoscaler", "ScaledObject")


def resource(kind: str) -> Resource:
    """Return where a kind lives; raises Bug for a kind that the table does not hold."""
    if kind not in RESOURCES:
        raise Bug(f"kind {kind} is not in the path table")
    return RESOURCES[kind]


def collection_path(kind: str, namespace: str) -> str:
    """Return the path of a kind's collection; an empty namespace means all of them."""
    where = resource(kind)
    root = "/api/v1" if where.api_version == "v1" else f"/apis/{where.api_version}"
    scope = f"/namespaces/{namespace}" if namespace else ""
    return f"{root}{scope}/{where.plural}"


def object_path(ref: Ref, subresource: str = "") -> str:
    """Return the path of one object, or of its subresource."""
    path = f"{collection_path(ref.kind, ref.namespace)}/{ref.name}"
    return f"{path}/{subresource}" if subresource else path


def ref_of(obj: Object) -> Ref:
    """Return which object a manifest speaks of; raises Bug on another version of its kind."""
    kind = str(obj["kind"])
    if obj.get("apiVersion") != resource(kind).api_version:
        raise Bug(f"{kind} has apiVersion {obj.get('apiVersion')}")
    meta = obj["metadata"]
    return Ref(kind, str(meta["namespace"]), str(meta["name"]))


def uid_of(obj: Object) -> str:
    """Return the UID that the API server gave an object."""
    return str(obj["metadata"]["uid"])


def version_of(obj: Object) -> str:
    """Return the resourceVersion of a live object."""
    return str(obj["metadata"]["resourceVersion"])
