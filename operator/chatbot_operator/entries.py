"""Live objects -> the small frozen values that stores keep. Pure."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final

from pydantic import ValidationError

from chatbot_core import names
from chatbot_core.runtime_config import RuntimeConfig
from chatbot_operator.kinds import Object
from chatbot_operator.model import Autoscaler, Child, Json, Owner, Pod, Secret
from chatbot_operator.store import OwnerKey

_OUR_LABEL_PREFIXES: Final = ("app.kubernetes.io/", f"{names.GROUP}/")


@dataclass(frozen=True, slots=True)
class PodEntry:
    """A pod, and where its internal port is reached ("" = not yet)."""

    pod: Pod
    address: str


def owner_of(obj: Object) -> OwnerKey | None:
    """Return whose child this is by namespace and instance label; None = nobody's."""
    meta = obj["metadata"]
    instance = (meta.get("labels") or {}).get(names.LABEL_INSTANCE, "")
    return (str(meta["namespace"]), str(instance)) if instance else None


def same_child(old: Child, new: Child) -> bool:
    """Whether nothing that a plan reads has changed (the version alone is no news)."""
    return replace(old, resource_version="") == replace(new, resource_version="")


def autoscaler(obj: Object) -> Autoscaler:
    """Return what is kept of an autoscaler; KEDA leaves out the kind of a Deployment."""
    target = (obj.get("spec") or {}).get("scaleTargetRef") or {}
    return Autoscaler(
        kind=str(obj["kind"]),
        name=str(obj["metadata"]["name"]),
        target_kind=str(target.get("kind") or "Deployment"),
        target=str(target.get("name") or ""),
    )


def target_of(obj: Object) -> OwnerKey:
    """Return namespace and name of what an autoscaler scales."""
    return str(obj["metadata"]["namespace"]), autoscaler(obj).target


def own_key(obj: Object) -> OwnerKey:
    """Return the key of a ChatbotCluster itself."""
    return str(obj["metadata"]["namespace"]), str(obj["metadata"]["name"])


def operator_class(obj: Object) -> str:
    """Return the class of operator that a ChatbotCluster asks for, "" where it states none."""
    return str((obj.get("spec") or {}).get("operatorClass") or "")


def owner(obj: Object) -> Owner:
    """Return what is kept of a ChatbotCluster."""
    meta = obj["metadata"]
    return Owner(
        namespace=str(meta["namespace"]),
        name=str(meta["name"]),
        uid=str(meta["uid"]),
        generation=int(meta.get("generation") or 0),
        spec=dict(obj.get("spec") or {}),
        status=dict(obj.get("status") or {}),
        deleting="deletionTimestamp" in meta,
        deleting_since_s=_epoch_s(meta.get("deletionTimestamp")),
        finalizers=tuple(meta.get("finalizers") or ()),
    )


def child(obj: Object) -> Child:
    """Return what is kept of a child of any watched kind, or of a Secret's metadata."""
    meta = obj["metadata"]
    labels = meta.get("labels") or {}
    annotations = meta.get("annotations") or {}
    spec, status = obj.get("spec") or {}, obj.get("status") or {}
    controller = _controller(meta)
    kept = Child(
        kind=str(obj["kind"]),
        name=str(meta["name"]),
        uid=str(meta["uid"]),
        resource_version=str(meta.get("resourceVersion") or ""),
        applied=str(annotations.get(names.ANNOTATION_APPLIED) or ""),
        template=str(annotations.get(names.ANNOTATION_TEMPLATE) or ""),
        owner_uid=str(controller.get("uid") or ""),
        adopter=_adopter(controller),
        cluster_uid=str(annotations.get(names.ANNOTATION_CLUSTER_UID) or ""),
        retained_from=str(labels.get(names.LABEL_RETAINED_FROM) or ""),
        labels={k: v for k, v in labels.items() if k.startswith(_OUR_LABEL_PREFIXES)},
        generation=int(meta.get("generation") or 0),
        observed_generation=int(status.get("observedGeneration") or 0),
        deleting="deletionTimestamp" in meta,
        managed=_our_fields(meta),
        scaler_owns_replicas=_scaler_owns_replicas(meta),
    )
    return replace(kept, **_of_kind(kept.kind, obj, spec, status))


def secret(obj: Object) -> Secret:
    """Return what is kept of a Secret: no value of it."""
    data = obj.get("data") or {}
    return Secret(child(obj), frozenset(key for key, value in data.items() if value))


def pod(obj: Object) -> PodEntry:
    """Return what is kept of a pod: the first container in trouble speaks for it."""
    meta, status = obj["metadata"], obj.get("status") or {}
    conditions = {c["type"]: c for c in status.get("conditions") or ()}
    scheduled = conditions.get("PodScheduled") or {}
    lacks_room = scheduled.get("status") == "False" and scheduled.get("reason") == "Unschedulable"
    trouble = _trouble(status)
    waiting = (trouble.get("state") or {}).get("waiting") or {}
    ended = (trouble.get("lastState") or {}).get("terminated") or {}
    value = Pod(
        name=str(meta["name"]),
        component=str((meta.get("labels") or {}).get(names.LABEL_COMPONENT) or ""),
        ready=(conditions.get("Ready") or {}).get("status") == "True",
        waiting_reason=str(waiting.get("reason") or ""),
        message=str(waiting.get("message") or ended.get("message") or ""),
        restarts=int(trouble.get("restartCount") or 0),
        unschedulable=str(scheduled.get("message") or "") if lacks_room else "",
        unschedulable_since_s=_epoch_s(scheduled.get("lastTransitionTime")) if lacks_room else 0.0,
        boot=str((meta.get("annotations") or {}).get(names.ANNOTATION_BOOT) or ""),
        deleting="deletionTimestamp" in meta,
    )
    return PodEntry(value, str(status.get("podIP") or ""))


def _epoch_s(time: str | None) -> float:
    return datetime.fromisoformat(time).timestamp() if time else 0.0


def _of_kind(kind: str, obj: Object, spec: Json, status: Json) -> Mapping[str, Any]:
    if kind in {"Deployment", "StatefulSet"}:
        return _workload(spec, status)
    if kind == "Job":
        failed = any(
            c["type"] == "Failed" and c["status"] == "True" for c in status.get("conditions") or ()
        )
        return {
            "succeeded": int(status.get("succeeded") or 0),
            "failed": int(status.get("failed") or 0),
            "job_failed": failed,
        }
    if kind == "PersistentVolumeClaim":
        requests = (spec.get("resources") or {}).get("requests") or {}
        return {
            "phase": str(status.get("phase") or ""),
            "requested": str(requests.get("storage") or ""),
            "capacity": str((status.get("capacity") or {}).get("storage") or ""),
            **_resize(status),
        }
    if kind == "Service":
        return {"cluster_ip": str(spec.get("clusterIP") or "")}
    copies = {
        "ConfigMap": (obj.get("data"), names.CHOICE_KEY),
        "ServiceAccount": (obj["metadata"].get("annotations"), names.ANNOTATION_CHOICE),
    }
    place, key = copies.get(kind, (None, ""))
    kept: dict[str, Any] = {"choice": str((place or {}).get(key) or "")}
    if kind == "ConfigMap":
        kept["stores"] = listed_stores(str((obj.get("data") or {}).get(names.CONFIG_KEY) or ""))
    return kept


def listed_stores(document: str) -> tuple[str, ...]:
    """Return the stores of a RuntimeConfig, () where somebody made it unreadable."""
    try:
        config = RuntimeConfig.model_validate_json(document)
    except ValidationError:
        return ()
    return tuple(one.name for one in config.boot.api.stores)


#: Types of conditions of a claim, and states of `allocatedResourceStatuses`: KEP-1790, of which
#: the states were called `...Failed` before Kubernetes 1.32.
_RESIZING: Final = ("Resizing", "FileSystemResizePending")
_RESIZE_ERRORS: Final = ("ControllerResizeError", "NodeResizeError")
_RESIZE_ENDS: Final = ("Infeasible", "Failed")


def _resize(status: Json) -> Mapping[str, Any]:
    """Return what a claim says about a growth that is not done."""
    conditions = {
        one["type"]: f"{one['type']} {one.get('message') or ''}".rstrip()
        for one in status.get("conditions") or ()
        if one["status"] == "True"
    }
    state = str((status.get("allocatedResourceStatuses") or {}).get("storage") or "")
    errors = [conditions[kind] for kind in _RESIZE_ERRORS if kind in conditions]
    others = [conditions[kind] for kind in _RESIZING if kind in conditions]
    said = [*errors, *others, *([state] if state else [])]
    failed = bool(errors) or state.endswith(_RESIZE_ENDS)
    return {"resize": said[0] if said else "", "resize_failed": failed}


def _workload(spec: Json, status: Json) -> Mapping[str, Any]:
    counts = {
        "current": "replicas",
        "ready": "readyReplicas",
        "updated": "updatedReplicas",
        "available": "availableReplicas",
        "unavailable": "unavailableReplicas",
    }
    failures = (one for one in status.get("conditions") or () if one["type"] == "ReplicaFailure")
    refused: Json = next((one for one in failures if one["status"] == "True"), {})
    return {
        "replicas": spec.get("replicas"),
        "pods_refused": str(refused.get("message") or ""),
        **{ours: int(status.get(theirs) or 0) for ours, theirs in counts.items()},
    }


def _controller(meta: Json) -> Json:
    references = meta.get("ownerReferences") or ()
    return next((one for one in references if one.get("controller")), {})


def _adopter(controller: Json) -> str:
    kind = controller.get("kind")
    return "" if kind in {None, names.KIND} else f"{kind} {controller.get('name')}"


def _our_fields(meta: Json) -> str | None:
    for entry in meta.get("managedFields") or ():
        if _is_apply_of(entry, names.MANAGER):
            # The shards of an object have the same fields: they share one text.
            return sys.intern(json.dumps(entry.get("fieldsV1") or {}, separators=(",", ":")))
    return None


def _scaler_owns_replicas(meta: Json) -> bool:
    return any(
        "f:replicas" in ((entry.get("fieldsV1") or {}).get("f:spec") or {})
        for entry in meta.get("managedFields") or ()
        if _is_apply_of(entry, names.SCALER_MANAGER)
    )


def _is_apply_of(entry: Json, manager: str) -> bool:
    return (
        entry.get("manager") == manager
        and entry.get("operation") == "Apply"
        and not entry.get("subresource")
    )


def _trouble(status: Json) -> Json:
    containers = [
        *(status.get("initContainerStatuses") or ()),
        *(status.get("containerStatuses") or ()),
    ]
    for container in containers:
        waiting = (container.get("state") or {}).get("waiting")
        if waiting and waiting.get("reason") not in {"ContainerCreating", "PodInitializing"}:
            trouble: Json = container
            return trouble
    return next((c for c in containers if c.get("restartCount") and not c.get("ready")), {})
