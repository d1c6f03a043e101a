"""What is left when everybody rests, comparable between objects of the same spec."""

from __future__ import annotations

import re
from base64 import b64decode
from typing import Any

from fakes.apiserver import CHILD_KINDS, Admin

from chatbot_core import names
from chatbot_operator.kinds import Object

_OF_THE_SERVER = frozenset(
    {"resourceVersion", "creationTimestamp", "managedFields", "uid", "clusterIP", "clusterIPs"}
    | {"status", "generation", "secrets", "batch.kubernetes.io/controller-uid", "controller-uid"}
    | {names.ANNOTATION_APPLIED, names.ANNOTATION_CLUSTER_UID}
)


def plain(value: Any, namespace: str) -> Any:
    """Return a value without what differs between two objects of the same spec."""
    if isinstance(value, dict):
        kept = {key: below for key, below in value.items() if key not in _OF_THE_SERVER}
        return {key: plain(below, namespace) for key, below in kept.items()}
    if isinstance(value, list):
        return [plain(item, namespace) for item in value]
    if isinstance(value, str):
        return re.sub(r"v1:[0-9a-f]{16}", "HASH", value.replace(namespace, "NAMESPACE"))
    return value


async def end_state(admin: Admin, namespace: str) -> dict[str, Object]:
    """Return every child, and of the controllers' objects how many there are of each owner."""
    found: dict[str, Object] = {}
    for kind in CHILD_KINDS:
        for item in await admin.list(kind, namespace):
            if names.LABEL_INSTANCE not in (item["metadata"].get("labels") or {}):
                continue
            if kind == "Secret":
                data = item["data"]
                assert all(data.values())
                item["data"] = sorted(data)
                if names.KEY_DSN in data:
                    password = b64decode(data[names.KEY_PASSWORD]).decode()
                    assert f":{password}@" in b64decode(data[names.KEY_DSN]).decode()
            found[f"{kind} {item['metadata']['name']}"] = plain(item, namespace)
    answer = await admin.http.get(f"/apis/apps/v1/namespaces/{namespace}/replicasets")
    owners = [one["metadata"]["ownerReferences"][0]["name"] for one in answer.json()["items"]]
    found["template versions"] = {name: owners.count(name) for name in sorted(owners)}
    return found
