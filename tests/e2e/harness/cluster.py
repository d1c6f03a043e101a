"""The local cluster of these tests: their own instance, with the operator in it."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from environment import ROOT
from firstrun import kube, manifests, questions
from firstrun.kube import Kubectl
from testlayers.prepare import CLUSTER_NAME

NAME = CLUSTER_NAME
OPERATOR_ACCOUNT = "chatbot-operator"
CONDITIONS = "jsonpath={range .items[*]}{.status.conditions}{'\\n'}{end}"


def hack(*words: str, timeout_s: float = 900) -> str:
    """Run a script of the repository; return what it printed."""
    done = subprocess.run(
        [sys.executable, *words],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )
    assert done.returncode == 0, f"{' '.join(words)}:\n{done.stderr[-3000:]}"
    return done.stdout


def on_cluster(*words: str) -> str:
    return hack("hack/cluster", "--name", NAME, *words)


@dataclass(frozen=True)
class Write:
    """One write request from the API server's audit log."""

    at: datetime
    user: str
    verb: str
    resource: str
    namespace: str
    name: str
    subresource: str


class Cluster:
    """kubectl, the audit log, the operator, and faults of the machine."""

    def __init__(self) -> None:
        self.status = json.loads(on_cluster("status", "--json"))
        self.kubectl = Kubectl(self.status["kubectl"], self.status["kubeconfig"])
        self.images: dict[str, str] = {}

    @classmethod
    def up(cls) -> "Cluster":
        on_cluster("up")
        return cls()

    def load_images(self) -> None:
        built = json.loads(hack("hack/release", "images"))
        on_cluster("load-image", *(one["tar"] for one in built.values()))
        self.images = {name: one["image"] for name, one in built.items()}

    def install_operator(self) -> None:
        for path in sorted((ROOT / "crds").glob("*.yaml")):
            self.kubectl.apply(questions.yaml_documents(path))
        self.kubectl.run("wait", "--for=condition=Established", "crd", "--all", "--timeout=30s")
        objects = self.operator_objects
        self.kubectl.apply([one for one in objects if one["kind"] == "Namespace"])
        self.kubectl.apply(objects)

    @cached_property
    def operator_objects(self) -> list[Any]:
        path = ROOT / "deploy" / "operator.yaml"
        return manifests.operator(questions.yaml_documents(path), self.images)

    @cached_property
    def operator_namespace(self) -> str:
        path = ROOT / "deploy" / "operator.yaml"
        return manifests.namespaces(questions.yaml_documents(path))[0]

    def publish(self, namespace: str, service: str, port: int) -> str:
        return on_cluster("publish", f"{namespace}/{service}:{port}").strip()

    def operator_writes(self, since: datetime) -> list[Write]:
        """Return what the operator wrote, Leases and Events aside."""
        return [
            write
            for write in self.writes(since)
            if write.user.endswith(f":{OPERATOR_ACCOUNT}")
            and write.resource not in {"leases", "events"}
        ]

    def writes(self, since: datetime) -> list[Write]:
        # The server may be in the middle of its last line.
        whole, _, _ = Path(self.status["auditLog"]).read_text(errors="replace").rpartition("\n")
        seen = [_write(json.loads(line)) for line in whole.splitlines()]
        return [write for write in seen if write and write.at >= since]

    @contextmanager
    def operator_in_a_watch_gap(self) -> Iterator[None]:
        """Stop every operator in its tracks and cut the watches; they go on where they were."""
        pids = self._operator_pids()
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        try:
            yield
            on_cluster("restart", "apiserver")
        finally:
            for pid in pids:
                os.kill(pid, signal.SIGCONT)

    def _operator_pids(self) -> list[int]:
        folders = [one for one in Path("/proc").iterdir() if one.name.isdigit()]
        pids = [int(folder.name) for folder in folders if self._is_operator(folder)]
        assert pids, "no operator's process is running"
        return pids

    def _is_operator(self, folder: Path) -> bool:
        try:
            words = (folder / "cmdline").read_bytes().split(b"\0")
            groups = (folder / "cgroup").read_text()
        except OSError:
            return False
        named = any(word.endswith(b"/chatbot-operator") for word in words)
        return named and self.status["cgroup"] in groups

    def story(self, *namespaces: str) -> str:
        """Return what a person would look at after a failure."""
        kubectl = self.kubectl
        parts = [
            kubectl.attempt("get", "cbc,pods", "--all-namespaces", "-o", "wide").stdout,
            kubectl.attempt(
                "get",
                "cbc",
                "-A",
                "-o",
                CONDITIONS,
            ).stdout,
            kube.failing_pods(kubectl, (self.operator_namespace, *namespaces)),
            kubectl.attempt(
                "logs", "-n", self.operator_namespace, "deployment/chatbot-operator", "--tail=30"
            ).stdout,
        ]
        return "\n\n".join(parts)


def _write(line: dict[str, Any]) -> Write | None:
    if line.get("stage") != "ResponseComplete":
        return None
    target = line.get("objectRef", {})
    return Write(
        datetime.fromisoformat(line["requestReceivedTimestamp"]),
        line["user"]["username"],
        line["verb"],
        target.get("resource", ""),
        target.get("namespace", ""),
        target.get("name", ""),
        target.get("subresource", ""),
    )
