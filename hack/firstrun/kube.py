"""kubectl against the quick start's cluster, and what it shows of pods that fail."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from typing import Any

from environment import ROOT
from firstrun.errors import StageFailedError

LOG_LINES = 12
TIMEOUT_S = 60.0
CLUSTER = (sys.executable, str(ROOT / "hack" / "cluster"))


@dataclass(frozen=True, slots=True)
class Kubectl:
    """The kubectl and kubeconfig of one cluster."""

    command: str
    kubeconfig: str

    def run(self, *arguments: str, document: str = "", timeout_s: float = TIMEOUT_S) -> str:
        """Run one command and return what it printed. Raises StageFailedError with its words."""
        done = self.attempt(*arguments, document=document, timeout_s=timeout_s)
        if done.returncode != 0:
            words = " ".join(arguments[:4])
            raise StageFailedError(f"kubectl {words}: {done.stderr.strip()}", done.returncode)
        return done.stdout

    def attempt(
        self, *arguments: str, document: str = "", timeout_s: float = TIMEOUT_S
    ) -> subprocess.CompletedProcess[str]:
        """Run one command that may fail; `document` goes to its standard input."""
        return subprocess.run(
            [self.command, "--kubeconfig", self.kubeconfig, *arguments],
            input=document,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
            timeout=timeout_s,
        )

    def get(self, *arguments: str) -> Any:
        """Return `kubectl get` as JSON; None where the one object asked for does not exist."""
        text = self.run("get", *arguments, "-o", "json", "--ignore-not-found")
        return json.loads(text) if text.strip() else None

    def apply(self, objects: list[Any]) -> None:
        """Apply objects by server-side apply."""
        document = json.dumps({"apiVersion": "v1", "kind": "List", "items": objects})
        self.run("apply", "--server-side", "--force-conflicts", "-f", "-", document=document)


def connect(name: str, provider: str) -> Kubectl:
    """Return the kubectl of a running instance."""
    line = [*CLUSTER, "--provider", provider, "--name", name, "status", "--json"]
    done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise StageFailedError(f"the cluster {name!r} is not up: {done.stderr.strip()}")
    status = json.loads(done.stdout)
    return Kubectl(status["kubectl"], status["kubeconfig"])


def failing_pods(kubectl: Kubectl, namespaces: tuple[str, ...]) -> str:
    """Return, for every pod that is not ready, why, and the last lines of its log."""
    found = []
    for namespace in namespaces:
        pods = kubectl.get("pods", "--namespace", namespace) or {"items": []}
        found += [_words(kubectl, pod) for pod in pods["items"] if not _well(pod)]
    return "\n".join(found) or "every pod is ready"


def _well(pod: Any) -> bool:
    if pod["status"].get("phase") == "Succeeded":
        return True
    conditions = {one["type"]: one["status"] for one in pod["status"].get("conditions", [])}
    return conditions.get("Ready") == "True"


def _words(kubectl: Kubectl, pod: Any) -> str:
    name, namespace = pod["metadata"]["name"], pod["metadata"]["namespace"]
    status = pod["status"]
    lines = [f"pod {namespace}/{name}: {status.get('phase')} {status.get('message', '')}".rstrip()]
    lines += [
        f"  {one['type']}: {one['message']}"
        for one in status.get("conditions", [])
        if one["status"] != "True" and one.get("message")
    ]
    for one in [*status.get("initContainerStatuses", []), *status.get("containerStatuses", [])]:
        if one.get("ready") or one.get("state", {}).get("terminated", {}).get("exitCode") == 0:
            continue
        waiting = one.get("state", {}).get("waiting", {})
        reason = f"{waiting.get('reason', 'not ready')} {waiting.get('message', '')}".rstrip()
        lines.append(f"  container {one['name']}: {reason}, {one['restartCount']} restarts")
        lines += _log(kubectl, namespace, name, one["name"])
    return "\n".join(lines)


def _log(kubectl: Kubectl, namespace: str, pod: str, container: str) -> list[str]:
    line = ("logs", "--namespace", namespace, pod, "--container", container)
    tail = f"--tail={LOG_LINES}"
    said = kubectl.attempt(*line, tail, "--previous").stdout or kubectl.attempt(*line, tail).stdout
    return [f"    {one}" for one in said.splitlines()[-LOG_LINES:]]
