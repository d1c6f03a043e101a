"""Whoever deletes or edits a child finds it as the object states it, within ten seconds."""

from typing import Any

import pytest
from e2e.harness.chatbot import HEAL_TIMEOUT_S, Chatbot
from e2e.harness.cluster import Cluster
from e2e.harness.people import works_again
from e2e.harness.waiting import until

from chatbot_core import names
from firstrun.service import Service


def test_every_deleted_service_and_config_map_comes_back(chatbot: Chatbot) -> None:
    children = chatbot.children("service,configmap")
    assert {child.kind for child in children} == {"service", "configmap"}
    for child in children:
        chatbot.delete_child(child)
        chatbot.wait_recreated(child)


def test_every_deleted_stateful_set_comes_back_and_the_service_answers_again(
    chatbot: Chatbot, service: Service
) -> None:
    children = chatbot.children("statefulset")
    assert len(children) >= 2
    for child in children:
        chatbot.delete_child(child)
        chatbot.wait_recreated(child)
    works_again(chatbot, service)


def test_a_label_taken_away_by_hand_comes_back(chatbot: Chatbot) -> None:
    name = names.child(chatbot.name, names.Component.API)
    chatbot.edit("service", name, {"metadata": {"labels": {names.LABEL_INSTANCE: None}}})

    def labelled() -> bool | None:
        labels = chatbot.get("service", name)["metadata"]["labels"]
        return labels.get(names.LABEL_INSTANCE) == chatbot.name or None

    until("the label is back", labelled, HEAL_TIMEOUT_S)


EDITS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "the selector of a Service": (
        "service",
        "{name}-api",
        {"spec": {"selector": {"app.kubernetes.io/component": "elsewhere"}}},
    ),
    "the replicas of a tier": ("deployment", "{name}-ingest", {"spec": {"replicas": 0}}),
    "the configuration": ("configmap", "{name}-config", {"data": {"runtime.json": "{}"}}),
}


@pytest.mark.parametrize("what", EDITS)
def test_an_edit_by_hand_is_taken_back(chatbot: Chatbot, what: str) -> None:
    heals(chatbot, what)


def test_an_edit_and_a_deletion_inside_a_watch_gap_are_taken_back(
    cluster: Cluster, chatbot: Chatbot
) -> None:
    kind, name, patch = edit_of(chatbot, "the selector of a Service")
    before = essence(chatbot, kind, name)
    deleted = chatbot.children("configmap")[0]
    with cluster.operator_in_a_watch_gap():
        chatbot.edit(kind, name, patch)
        assert essence(chatbot, kind, name) != before
        chatbot.delete_child(deleted)
    until(
        "the edit made in the gap is gone",
        lambda: essence(chatbot, kind, name) == before or None,
        HEAL_TIMEOUT_S,
    )
    chatbot.wait_recreated(deleted)
    chatbot.wait_ready()


def heals(chatbot: Chatbot, what: str) -> None:
    kind, name, patch = edit_of(chatbot, what)
    before = essence(chatbot, kind, name)
    chatbot.edit(kind, name, patch)
    until(
        f"{what} is as before",
        lambda: essence(chatbot, kind, name) == before or None,
        HEAL_TIMEOUT_S,
    )


def edit_of(chatbot: Chatbot, what: str) -> tuple[str, str, dict[str, Any]]:
    kind, pattern, patch = EDITS[what]
    return kind, pattern.format(name=chatbot.name), patch


def essence(chatbot: Chatbot, kind: str, name: str) -> Any:
    """Return what the object states: all but the server's own bookkeeping."""
    found = chatbot.get(kind, name)
    return found.get("spec", found.get("data"))
