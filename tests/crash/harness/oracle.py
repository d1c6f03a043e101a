"""What two runs of a workflow must have in common: the end state, and what was made and removed.

Masked is only what differs between two undisturbed runs, by the name of the field.
"""

from __future__ import annotations

import re
from base64 import b64decode
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from crash.harness.proxy import Write
from fakes.apiserver import Admin

from chatbot_core import names
from chatbot_operator.kinds import WATCHED, Object

#: Given by the API server, by its clock, or by controllers that count their own steps.
MASKED = frozenset(
    {"resourceVersion", "creationTimestamp", "lastTransitionTime", "uid", "generation", "time"}
    | {"observedGeneration", "clusterIP", "clusterIPs", "secrets", "volumeName"}
    | {"batch.kubernetes.io/controller-uid", "controller-uid", "deployment.kubernetes.io/revision"}
    | {names.ANNOTATION_CLUSTER_UID}
)
_UID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
#: Of the object's UID and of its namespace.
_HASH = re.compile(r"v1:[0-9a-f]{16}")
_OURS = frozenset({names.MANAGER, names.SCALER_MANAGER, names.STATUS_MANAGER})


def masked(value: Any, words: Mapping[str, str]) -> Any:
    """Return a value without what differs between two undisturbed runs."""
    if isinstance(value, dict):
        return {
            _plain(key, words): masked(below, words)
            for key, below in value.items()
            if key not in MASKED
        }
    if isinstance(value, list):
        return [masked(item, words) for item in value]
    return _plain(value, words) if isinstance(value, str) else value


def _plain(text: str, words: Mapping[str, str]) -> str:
    for word, mask in words.items():
        text = text.replace(word, mask)
    return _HASH.sub("HASH", _UID.sub("UID", text))


def _ours(meta: Object) -> list[Object]:
    entries = [one for one in meta.get("managedFields") or () if one["manager"] in _OURS]
    return sorted(entries, key=lambda one: (one["manager"], one["operation"]))


async def objects(admin: Admin, namespace: str) -> list[Object]:
    """Return the object and every child of it, Secrets included, pods left out."""
    found = []
    for kind in sorted({names.KIND, "Secret", *WATCHED} - {"Pod"}):
        for item in await admin.list(kind, namespace):
            labels = item["metadata"].get("labels") or {}
            if kind == names.KIND or names.LABEL_INSTANCE in labels:
                found.append({**item, "kind": kind})
    return found


def end_state(found: Iterable[Object], words: Mapping[str, str]) -> dict[str, Object]:
    """Return all objects, masked. Asserts that each generated Secret agrees within itself."""
    state: dict[str, Object] = {}
    for item in found:
        kind, meta = item["kind"], item["metadata"]
        one = {**item, "metadata": {**meta, "managedFields": _ours(meta)}}
        if kind == "Secret":
            one["data"] = _names_of_secret_data(item["data"])
        if kind not in {names.KIND, "PersistentVolumeClaim"}:
            one.pop("status", None)
        state[f"{kind} {meta['name']}"] = masked(one, words)
    return state


def _names_of_secret_data(data: dict[str, str]) -> list[str]:
    assert all(data.values())
    if names.KEY_DSN in data:
        password = b64decode(data[names.KEY_PASSWORD]).decode()
        assert f":{password}@" in b64decode(data[names.KEY_DSN]).decode()
    return sorted(data)


def made_and_removed(writes: Iterable[Write]) -> Counter[str]:
    """Return how often the operator created and deleted each object, Events left out."""
    counts: Counter[str] = Counter()
    for write in writes:
        if write.what.kind == "Event":
            continue
        place = f"{write.what.kind} {write.what.name}"
        if write.status == 201:
            counts[f"create {place}"] += 1
        if write.what.verb == "delete" and write.status < 300:
            counts[f"delete {place}"] += 1
    return counts
