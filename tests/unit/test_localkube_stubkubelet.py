"""What the stub kubelet does for which pod and claim, and what it then writes."""

from __future__ import annotations

from typing import Any

import pytest

from localkube.stubkubelet import NODE, Behaviour, Step, next_step, pod_status, wants_room


def pod(status: dict[str, Any] | None = None, *, deleted: bool = False, **spec: Any) -> Any:
    gone = {"deletionTimestamp": "2026-01-01T00:00:00Z"} if deleted else {}
    containers = [{"name": "main", "image": "registry.example/runtime:1"}]
    return {
        "metadata": {"name": "chat-api-0", **gone},
        "spec": {"containers": containers, **spec},
        "status": status or {"phase": "Pending"},
    }


def claim(asked: str, phase: str = "Pending", has: str = "") -> Any:
    return {
        "metadata": {"name": "chat-documents"},
        "spec": {"resources": {"requests": {"storage": asked}}},
        "status": {"phase": phase, **({"capacity": {"storage": has}} if has else {})},
    }


@pytest.mark.parametrize(
    ("given", "step"),
    [
        (pod(), Step.BIND),
        (pod(nodeName=NODE), Step.START),
        (pod(nodeName=NODE, restartPolicy="OnFailure"), Step.FINISH),
        (pod(nodeName=NODE, containers=[{"image": "x:missing"}]), Step.REFUSE_IMAGE),
        (pod({"phase": "Running", "containerStatuses": [{}]}, nodeName=NODE), None),
        (pod({"phase": "Succeeded"}, nodeName=NODE), None),
        (pod(nodeName="another-node"), None),
        (pod({"phase": "Running"}, nodeName=NODE, deleted=True), Step.REMOVE),
    ],
)
def test_each_pod_gets_what_it_needs_next(given: Any, step: Step | None) -> None:
    assert next_step(given, Behaviour()) is step


def test_a_claim_is_served_until_it_has_what_it_asks() -> None:
    served = [claim("1Gi"), claim("2Gi", "Bound", "1Gi"), claim("2Gi", "Bound", "2Gi")]
    assert [wants_room(one) for one in served] == [True, True, False]


def test_a_sidecar_runs_while_other_init_containers_have_ended() -> None:
    first = [
        {"name": "ollama", "image": "ollama:1", "restartPolicy": "Always"},
        {"name": "fetch", "image": "fetch:1"},
    ]
    status = pod_status(pod(initContainers=first), Step.START, Behaviour(), "now")
    states = {one["name"]: one["state"] for one in status["initContainerStatuses"]}
    assert {name: [*state] for name, state in states.items()} == {
        "ollama": ["running"],
        "fetch": ["terminated"],
    }
    assert status["phase"] == "Running"
    assert {one["type"]: one["status"] for one in status["conditions"]} == {
        "Initialized": "True",
        "Ready": "True",
        "ContainersReady": "True",
        "PodScheduled": "True",
    }


def test_an_image_that_is_missing_is_named_as_a_kubelet_names_it() -> None:
    status = pod_status(pod(), Step.REFUSE_IMAGE, Behaviour(), "now")
    (container,) = status["containerStatuses"]
    assert status["phase"] == "Pending"
    assert container["state"]["waiting"]["reason"] == "ImagePullBackOff"
    assert container["ready"] is False
