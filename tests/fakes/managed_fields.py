"""What the API server notes in `managedFields` about an apply: which leaves, never their values."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from chatbot_operator.model import Json

#: Keys of keyed lists, by the field that holds them (Kubernetes' own schema).
_LIST_KEYS: Mapping[str, tuple[str, ...]] = {
    "containers": ("name",),
    "initContainers": ("name",),
    "volumes": ("name",),
    "env": ("name",),
    "volumeMounts": ("mountPath",),
    "ownerReferences": ("uid",),
    "imagePullSecrets": ("name",),
    "topologySpreadConstraints": ("topologyKey", "whenUnsatisfiable"),
}
_ATOMIC_MAPS = frozenset(
    {
        "selector",
        "fieldRef",
        "nodeSelector",
        "labelSelector",
        "requiredDuringSchedulingIgnoredDuringExecution",
    }
)


def managed_fields(desired: Json) -> Json:
    """Return `fieldsV1` as the API server writes it after an apply of the whole object."""
    metadata = {k: v for k, v in desired["metadata"].items() if k not in {"name", "namespace"}}
    rest = {k: v for k, v in desired.items() if k not in {"apiVersion", "kind", "metadata"}}
    return {"f:metadata": _map(metadata), **_map(rest)}


def _map(value: Json) -> Json:
    return {f"f:{key}": _below(key, below) for key, below in value.items()}


def _below(key: str, value: Any) -> Json:
    if isinstance(value, dict):
        return {} if key in _ATOMIC_MAPS else _map(value)
    if isinstance(value, list) and value and isinstance(value[0], dict):
        keys = _keys(key, value[0])
        if key in {"imagePullSecrets", "ownerReferences"}:
            return {_entry(item, keys): {} for item in value}
        return {_entry(item, keys): {".": {}, **_map(item)} for item in value} if keys else {}
    return {}


def _keys(key: str, item: Json) -> tuple[str, ...]:
    if key == "ports":
        return ("containerPort" if "containerPort" in item else "port", "protocol")
    return _LIST_KEYS.get(key, ())


def _entry(item: Json, keys: Iterable[str]) -> str:
    return "k:" + json.dumps({key: item[key] for key in keys}, separators=(",", ":"))
