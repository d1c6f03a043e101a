"""One ChatbotCluster on the cluster: its object, its children, its pods, its service."""

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from e2e.harness.cluster import Cluster
from e2e.harness.waiting import until

from chatbot_core import names
from firstrun import manifests
from firstrun.asking import Access
from firstrun.kubernetes import current_conditions
from firstrun.service import Service

READY_TIMEOUT_S = 300.0
HEAL_TIMEOUT_S = 10.0
#: Of the API's Service, the one thing that people address.
SERVICE_PORT = 80
#: Everything that may carry the label of an instance in its namespace.
ALL_KINDS = (
    "deployment,statefulset,job,pod,service,configmap,secret,serviceaccount,"
    "persistentvolumeclaim,poddisruptionbudget"
)


@dataclass(frozen=True)
class Pod:
    """A pod as it was when looked at."""

    name: str
    uid: str
    ready: bool


@dataclass(frozen=True)
class Child:
    """A child of the object: enough to see whether it is still the same, or new, or whole."""

    kind: str
    name: str
    uid: str


class Chatbot:
    """One document-chat service in a namespace of its own."""

    def __init__(self, cluster: Cluster, namespace: str, name: str) -> None:
        self.cluster, self.namespace, self.name = cluster, namespace, name
        self.kubectl = cluster.kubectl

    # -- the object

    def apply(self, spec: Mapping[str, Any]) -> None:
        namespace = {
            "apiVersion": "v1",
            "kind": "Namespace",
            "metadata": {"name": self.namespace},
        }
        given = {
            "apiVersion": names.API_VERSION,
            "kind": names.KIND,
            "metadata": {"name": self.name, "namespace": self.namespace},
            "spec": spec,
        }
        self.kubectl.apply([namespace])
        self.kubectl.apply([manifests.cluster(given, self.cluster.images)])

    def patch(self, spec: Mapping[str, Any]) -> None:
        body = json.dumps({"spec": spec})
        self._kubectl("patch", "cbc", self.name, "--type=merge", f"--patch={body}")

    def delete(self) -> None:
        self._kubectl("delete", "cbc", self.name, "--wait=true")

    def found(self) -> Any:
        return self.get("cbc", self.name)

    def conditions(self) -> dict[str, Any]:
        found = self.found()
        return current_conditions(found) if found else {}

    def is_ready(self) -> bool:
        return bool(self.conditions().get("Ready", {}).get("status") == "True")

    def wait_ready(self, timeout_s: float = READY_TIMEOUT_S) -> None:
        until(f"{self.name} is Ready", lambda: self.is_ready() or None, timeout_s, poll_s=1)

    # -- its children

    def get(self, *words: str) -> Any:
        return self.kubectl.get(*words, "--namespace", self.namespace)

    def owned(self, kinds: str = ALL_KINDS) -> list[Any]:
        label = f"{names.LABEL_INSTANCE}={self.name}"
        found = self.get(kinds, "--selector", label)
        return found["items"] if found else []

    def children(self, kinds: str) -> list[Child]:
        return [
            Child(one["kind"].lower(), one["metadata"]["name"], one["metadata"]["uid"])
            for one in self.owned(kinds)
            if _made_by_operator(one)
        ]

    def delete_child(self, child: Child) -> None:
        self._kubectl("delete", child.kind, child.name, "--wait=false")

    def wait_recreated(self, child: Child) -> None:
        def another() -> bool | None:
            found = self.get(child.kind, child.name)
            return bool(found and found["metadata"]["uid"] != child.uid) or None

        until(f"{child.kind}/{child.name} is there again", another, HEAL_TIMEOUT_S)

    def edit(self, kind: str, name: str, patch: Mapping[str, Any]) -> None:
        body = json.dumps(patch)
        self._kubectl("patch", kind, name, "--type=merge", f"--patch={body}")

    # -- its pods

    def pods(self, component: names.Component) -> list[Pod]:
        """Return the pods of a tier: `shard` means every shard, `store` every store."""
        found = self.get("pods", "--selector", f"{names.LABEL_INSTANCE}={self.name}")
        return [
            Pod(one["metadata"]["name"], one["metadata"]["uid"], _is_ready(one))
            for one in found["items"]
            if "deletionTimestamp" not in one["metadata"]
            and _tier(one["metadata"]["labels"][names.LABEL_COMPONENT]) == component.value
        ]

    def kill(self, pod: Pod) -> None:
        """End a pod at once, as a node that loses power does."""
        self._kubectl("delete", "pod", pod.name, "--grace-period=0", "--force", "--wait=false")

    def wait_replaced(
        self, killed: Pod, component: names.Component, timeout_s: float = 120.0
    ) -> None:
        def replaced() -> bool | None:
            pods = self.pods(component)
            gone = killed.uid not in {pod.uid for pod in pods}
            return (gone and bool(pods) and all(pod.ready for pod in pods)) or None

        until(f"a new pod for {killed.name}", replaced, timeout_s)

    def secret(self, name: str) -> dict[str, str]:
        data = self.get("secret", name)["data"]
        return {key: base64.b64decode(value).decode() for key, value in data.items()}

    # -- its service

    @cached_property
    def url(self) -> str:
        service = names.child(self.name, names.Component.API)
        return self.cluster.publish(self.namespace, service, SERVICE_PORT)

    def admin(self) -> Service:
        """Log in as the first admin; the session survives every pod but the database's volume."""
        secret = self.secret(names.admin_secret(self.name))
        access = Access(self.url, secret[names.KEY_USERNAME], secret[names.KEY_PASSWORD])
        return access.login()

    def _kubectl(self, *words: str) -> str:
        return self.kubectl.run(*words, "--namespace", self.namespace)


def _made_by_operator(found: Any) -> bool:
    owners = found["metadata"].get("ownerReferences", [])
    return any(owner["kind"] == names.KIND for owner in owners)


def _is_ready(pod: Any) -> bool:
    conditions = {one["type"]: one["status"] for one in pod["status"].get("conditions", [])}
    return conditions.get("Ready") == "True"


def _tier(component: str) -> str:
    return component.partition("-")[0]
