"""Stage 2: the same documents and question through the operator on a real Kubernetes."""

from __future__ import annotations

import base64
import subprocess
import time
from typing import Any

from environment import ROOT
from firstrun import kube, manifests, questions
from firstrun.asking import Access, show_answer, upload_examples
from firstrun.errors import StageFailedError
from firstrun.kube import CLUSTER, Kubectl
from firstrun.plan import Plan
from firstrun.preparation import Preparation
from firstrun.questions import Question
from firstrun.report import Report
from firstrun.state import Book

READY_TIMEOUT_S = 420.0
STALLED_PATIENCE_S = 90.0
POLL_S = 1.0
OBJECT = "quickstart"
NAMESPACE = "default"
EXAMPLE = ROOT / "examples" / "quickstart.yaml"
OPERATOR = ROOT / "deploy" / "operator.yaml"
CRDS = ROOT / "crds"
LABEL = "Kubernetes, operator, Ollama"
HONESTY = "has 135 million parameters: it shows the mechanics, not the quality of the answers."


def show(
    report: Report, book: Book, plan: Plan, preparation: Preparation, question: Question
) -> Access:
    """Answer the question through the cluster. Raises StageFailedError, with failing pods."""
    images = preparation.wait()
    began_s = time.monotonic()
    kubectl = kube.connect(plan.name, plan.provider)
    operator = manifests.operator(questions.yaml_documents(OPERATOR), images)
    watched = (*manifests.namespaces(operator), NAMESPACE)
    with report.stage("stage 2, service", plan.expected_s("service")):
        try:
            _deploy(kubectl, operator, images, report)
            _wait_ready(kubectl, report)
            access = _access(kubectl, plan)
            service = access.login()
            upload_examples(service, report)
            show_answer(service, question, LABEL, report)
        except StageFailedError as error:
            pods = kube.failing_pods(kubectl, watched)
            raise StageFailedError(f"{error}\n{pods}", error.code) from error
    report.plain(f"  the model {_model(kubectl)} {HONESTY}\n")
    book.took("service", time.monotonic() - began_s)
    return access


def _deploy(kubectl: Kubectl, operator: list[Any], images: dict[str, str], report: Report) -> None:
    report.line("applying crds/, deploy/operator.yaml, examples/quickstart.yaml")
    definitions = [one for path in sorted(CRDS.glob("*.yaml")) for one in _yaml(path)]
    kubectl.apply(definitions)
    names = [f"crd/{one['metadata']['name']}" for one in definitions]
    kubectl.run("wait", "--for=condition=Established", "--timeout=30s", *names)
    kubectl.apply([one for one in operator if one["kind"] == "Namespace"])
    kubectl.apply(operator)
    kubectl.apply([manifests.cluster(one, images) for one in _yaml(EXAMPLE)])


def _yaml(path: Any) -> list[Any]:
    return questions.yaml_documents(path)


def _wait_ready(kubectl: Kubectl, report: Report) -> None:
    """Wait for the condition Ready of this generation; print what it waits for as that changes."""
    deadline_s, said, stalled_s = time.monotonic() + READY_TIMEOUT_S, "", 0.0
    while time.monotonic() < deadline_s:
        found = kubectl.get("cbc", OBJECT, "--namespace", NAMESPACE)
        conditions = current_conditions(found)
        ready = conditions.get("Ready", {})
        if ready.get("status") == "True":
            return
        words = f"Ready={ready.get('status', 'Unknown')} {ready.get('reason', '')}"
        detail = f"{words}: {ready.get('message', 'the operator has not looked yet')}"
        if detail != said:
            report.line(detail)
            said = detail
        stalled_s = stalled_s + POLL_S if "Stalled" in conditions else 0.0
        if stalled_s > STALLED_PATIENCE_S:
            raise StageFailedError(f"stalled: {conditions['Stalled'].get('message', words)}")
        time.sleep(POLL_S)
    raise StageFailedError(f"not Ready after {READY_TIMEOUT_S:.0f} s: {said}")


def current_conditions(found: Any) -> dict[str, Any]:
    """Return the conditions by type, none where they speak of an older generation. Pure."""
    status = found.get("status", {})
    if status.get("observedGeneration") != found["metadata"]["generation"]:
        return {}
    return {one["type"]: one for one in status.get("conditions", [])}


def _access(kubectl: Kubectl, plan: Plan) -> Access:
    secret = kubectl.get("secret", f"{OBJECT}-admin", "--namespace", NAMESPACE)
    data = {key: base64.b64decode(value).decode() for key, value in secret["data"].items()}
    line = [*CLUSTER, "--provider", plan.provider, "--name", plan.name, "publish"]
    target = f"{NAMESPACE}/{OBJECT}-api:80"
    done = subprocess.run([*line, target], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise StageFailedError(f"publishing {target}: {done.stderr.strip()}")
    return Access(done.stdout.strip(), data["username"], data["password"])


def _model(kubectl: Kubectl) -> str:
    found = kubectl.get("cbc", OBJECT, "--namespace", NAMESPACE)
    name = found.get("status", {}).get("model", {}).get("name")
    return str(name or found["spec"]["inference"]["model"])


def remove_from_current(name: str) -> None:
    """Take the quick start's objects out of a cluster that is not ours to end."""
    kubectl = kube.connect(name, "current")
    kubectl.run("delete", "cbc", OBJECT, "--namespace", NAMESPACE, "--ignore-not-found")
    for path in (OPERATOR, *sorted(CRDS.glob("*.yaml"))):
        kubectl.run("delete", "-f", str(path), "--ignore-not-found", timeout_s=180.0)
