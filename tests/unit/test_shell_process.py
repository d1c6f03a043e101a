"""Arguments, probes, news and what is kept of a live object."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import httpx
import kopf
import pytest

from chatbot_core import names
from chatbot_operator import entries, events, handlers, health
from chatbot_operator.heartbeats import Echo, Heartbeats
from chatbot_operator.kinds import Ref
from chatbot_operator.main import arguments
from chatbot_operator.model import Child, Pod
from chatbot_operator.telemetry import Telemetry


def test_flags_win_over_the_environment_and_the_environment_over_defaults() -> None:
    environment = {
        "RUNTIME_IMAGE": "env/runtime:1",
        "WATCH_NAMESPACES": "a, b",
        "OPERATOR_CLASS": "blue",
    }
    process = arguments(["--runtime-version=2", "--port", "0"], environment)
    assert process.settings.runtime_image == "env/runtime:1"
    assert process.settings.runtime_version == "2"
    assert process.settings.ollama_image == "localhost/chatbot-ollama:dev"
    assert (process.namespaces, process.port) == (("a", "b"), 0)
    assert process.operator_class == "blue"


@pytest.mark.parametrize(
    ("silent_s", "others_s", "expected"),
    [(1.0, 1.0, 200), (181.0, 1.0, 503), (181.0, 181.0, 200), (1801.0, 1801.0, 503)],
)
async def test_a_restart_is_asked_for_where_it_could_help(
    silent_s: float, others_s: float, expected: int
) -> None:
    now = [0.0]
    heartbeats = Heartbeats(lambda: now[0])
    for scope, at_s in (("ConfigMap@", -silent_s), ("Pod@", -others_s)):
        now[0] = at_s
        heartbeats.beat(scope)
    now[0] = 0.0
    telemetry = Telemetry()
    pulse = health.Pulse(telemetry, heartbeats)
    async with (
        health.serve(0, pulse, lambda: False, telemetry) as port,
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False) as http,
    ):
        assert (await http.get("/livez")).status_code == expected
        assert (await http.get("/readyz")).status_code == 503


def test_a_refused_watch_lives_but_has_no_news() -> None:
    now = [0.0]
    heartbeats = Heartbeats(lambda: now[0])
    for scope in ("ConfigMap@", "Pod@"):
        heartbeats.beat(scope)
    now[0] = 500.0
    heartbeats.beat("Pod@")
    heartbeats.answered("ConfigMap@")
    assert heartbeats.silent_s() == (0.0, 0.0)
    assert heartbeats.oldest_s() == 500.0


CHAT, DOCS = Ref(names.KIND, "ns", "chat"), Ref(names.KIND, "ns", "docs")


def test_a_watch_that_tells_what_lists_show_is_alive() -> None:
    echo = Echo()
    assert not echo.listed("@", {CHAT: 7})
    echo.told(CHAT, 8)
    assert echo.listed("@", {CHAT: 8})
    assert echo.listed("@", {})
    assert not echo.dead.is_set()


def test_a_watch_that_has_not_told_by_the_next_list_is_dead() -> None:
    echo = Echo()
    echo.told(CHAT, 7)
    assert not echo.listed("@", {CHAT: 7, DOCS: 8})
    assert not echo.dead.is_set()
    echo.listed("@", {CHAT: 7, DOCS: 8})
    assert echo.dead.is_set()
    echo.begin()
    assert not echo.dead.is_set()


def test_what_vanished_need_not_be_told() -> None:
    echo = Echo()
    echo.listed("@", {CHAT: 7})
    echo.gone(CHAT)
    echo.listed("@", {})
    assert not echo.dead.is_set()


def test_a_watch_is_started_anew_once_lists_are_allowed_again() -> None:
    echo = Echo()
    echo.failed("@")
    assert not echo.dead.is_set()
    echo.listed("@", {})
    assert echo.dead.is_set()


def test_credentials_that_were_refused_once_are_tried_again() -> None:
    # kopf drops what it knows as refused, by comparing all of it.
    found = kopf.ConnectionInfo(server="https://kubernetes.example", token="valid")
    first, second = handlers.as_new(found), handlers.as_new(found)
    assert first != second
    assert replace(first, expiration=None) == found


async def test_a_late_loop_is_trouble() -> None:
    pulse = health.Pulse(Telemetry(), Heartbeats(lambda: 0.0))
    pulse.at_s = asyncio.get_running_loop().time() - health.LAG_MAX_S - 2
    assert "late" in pulse.trouble()


def test_only_a_changed_condition_is_news() -> None:
    old = {"conditions": [{"type": "Ready", "status": "False", "reason": "WaitingForPods"}]}
    same = {"type": "Ready", "status": "False", "reason": "WaitingForPods", "message": "0 of 1"}
    stalled = {"type": "Stalled", "status": "True", "reason": "PodCrashing", "message": "exit 1"}
    assert events.of_conditions(old, {"conditions": [same]}) == ()
    assert events.of_conditions(old, {"conditions": [same, stalled]}) == (
        events.News("PodCrashing", "Observe", "Stalled is True: exit 1", warning=True),
    )


def test_what_is_kept_of_a_deployment() -> None:
    ours = {"f:spec": {"f:template": {}}}
    live = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {
            "name": "chat-api",
            "namespace": "ns",
            "uid": "u",
            "resourceVersion": "7",
            "generation": 3,
            "labels": {names.LABEL_INSTANCE: "chat", "team": "red"},
            "annotations": {names.ANNOTATION_APPLIED: "v1:1"},
            "ownerReferences": [{"uid": "other"}, {"uid": "o", "controller": True}],
            "managedFields": [
                {"manager": names.MANAGER, "operation": "Update", "fieldsV1": {"f:x": {}}},
                {"manager": names.MANAGER, "operation": "Apply", "fieldsV1": ours},
                {
                    "manager": names.SCALER_MANAGER,
                    "operation": "Apply",
                    "fieldsV1": {"f:spec": {"f:replicas": {}}},
                },
            ],
        },
        "spec": {"replicas": 2},
        "status": {"replicas": 2, "readyReplicas": 1, "observedGeneration": 3},
    }
    assert entries.owner_of(live) == ("ns", "chat")
    assert entries.child(live) == Child(
        kind="Deployment",
        name="chat-api",
        uid="u",
        resource_version="7",
        applied="v1:1",
        owner_uid="o",
        labels={names.LABEL_INSTANCE: "chat"},
        generation=3,
        observed_generation=3,
        managed='{"f:spec":{"f:template":{}}}',
        scaler_owns_replicas=True,
        replicas=2,
        current=2,
        ready=1,
    )


def test_the_first_container_in_trouble_speaks_for_its_pod() -> None:
    waiting = {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off"}}
    status = {
        "podIP": "10.0.0.9",
        "conditions": [{"type": "Ready", "status": "False"}],
        "initContainerStatuses": [
            {"name": "a", "ready": True, "restartCount": 4, "state": {"running": {}}}
        ],
        "containerStatuses": [{"name": "b", "restartCount": 2, "state": waiting}],
    }
    meta = {"name": "p", "namespace": "ns", "labels": {names.LABEL_COMPONENT: "api"}}
    kept = entries.pod({"kind": "Pod", "metadata": meta, "status": status})
    assert kept.address == "10.0.0.9"
    assert (kept.pod.waiting_reason, kept.pod.message, kept.pod.restarts) == (
        "CrashLoopBackOff",
        "back-off",
        2,
    )


def test_a_pod_without_room_says_what_lacks() -> None:
    condition = {
        "type": "PodScheduled",
        "status": "False",
        "reason": "Unschedulable",
        "message": "0/1 nodes: Insufficient memory",
        "lastTransitionTime": "2026-09-21T14:13:20Z",
    }
    meta = {"name": "p", "namespace": "ns"}
    kept = entries.pod({"kind": "Pod", "metadata": meta, "status": {"conditions": [condition]}})
    expected = Pod("p", "", unschedulable=condition["message"], unschedulable_since_s=1790000000.0)
    assert kept.pod == expected


def test_a_secret_is_kept_without_its_values() -> None:
    meta = {"name": "s", "namespace": "ns", "uid": "u"}
    kept = entries.secret({"kind": "Secret", "metadata": meta, "data": {"a": "eA==", "b": ""}})
    assert kept.keys == frozenset({"a"})
    assert "eA==" not in repr(kept)
