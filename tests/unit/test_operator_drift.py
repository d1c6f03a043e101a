"""Who owns what, read from `managedFields` as an API server writes them."""

from __future__ import annotations

import pytest

from chatbot_operator.drift import owns_all
from chatbot_operator.model import Json

SERVICE: Json = {
    "apiVersion": "v1",
    "kind": "Service",
    "metadata": {
        "name": "docs-api",
        "namespace": "team-a",
        "uid": "sent-to-update-only",
        "labels": {"app.kubernetes.io/name": "chatbot"},
        "ownerReferences": [{"uid": "u1", "kind": "ChatbotCluster", "name": "docs"}],
    },
    "spec": {
        "selector": {"app.kubernetes.io/name": "chatbot"},
        "ports": [
            {"name": "http", "port": 80, "targetPort": 8080, "protocol": "TCP"},
            {"name": "dns", "port": 53, "protocol": "UDP"},
        ],
    },
}
HTTP = 'k:{"port":80,"protocol":"TCP"}'
DNS = 'k:{"port":53,"protocol":"UDP"}'
MANAGED: Json = {
    "f:metadata": {
        "f:labels": {"f:app.kubernetes.io/name": {}},
        "f:ownerReferences": {'k:{"uid":"u1"}': {}},
    },
    "f:spec": {
        "f:selector": {},
        "f:ports": {
            HTTP: {".": {}, "f:name": {}, "f:port": {}, "f:targetPort": {}, "f:protocol": {}},
            DNS: {".": {}, "f:name": {}, "f:port": {}, "f:protocol": {}},
        },
    },
}


def without(managed: Json, *path: str) -> Json:
    head, *rest = path
    if not rest:
        return {key: value for key, value in managed.items() if key != head}
    return {**managed, head: without(managed[head], *rest)}


def test_an_untouched_object_is_ours() -> None:
    assert owns_all(SERVICE, MANAGED)


def test_an_object_without_an_entry_of_ours_is_not() -> None:
    assert not owns_all(SERVICE, None)


@pytest.mark.parametrize(
    "path",
    [
        ("f:metadata",),
        ("f:metadata", "f:labels"),
        ("f:metadata", "f:labels", "f:app.kubernetes.io/name"),
        ("f:metadata", "f:ownerReferences"),
        ("f:spec", "f:selector"),
        ("f:spec", "f:ports", HTTP),
        ("f:spec", "f:ports", HTTP, "f:targetPort"),
        ("f:spec", "f:ports", DNS),
    ],
)
def test_every_leaf_that_somebody_took_is_missed(path: tuple[str, ...]) -> None:
    managed = without(MANAGED, *path)
    if managed.get("f:metadata", {}).get("f:labels") == {}:
        managed = without(managed, "f:metadata", "f:labels")
    assert not owns_all(SERVICE, managed)


def test_an_entry_under_other_keys_is_not_this_item() -> None:
    ports = MANAGED["f:spec"]["f:ports"]
    moved = {'k:{"port":81,"protocol":"TCP"}': ports[HTTP], DNS: ports[DNS]}
    managed = {**MANAGED, "f:spec": {**MANAGED["f:spec"], "f:ports": moved}}
    assert not owns_all(SERVICE, managed)


def test_a_key_that_the_item_leaves_to_its_default_matches() -> None:
    desired = {"spec": {"ports": [{"port": 80}]}}
    assert owns_all(desired, {"f:spec": {"f:ports": {HTTP: {".": {}, "f:port": {}}}}})


def test_what_others_added_is_no_loss_of_ours() -> None:
    labels = {**MANAGED["f:metadata"]["f:labels"], "f:theirs": {}}
    managed = {**MANAGED, "f:metadata": {**MANAGED["f:metadata"], "f:labels": labels}}
    assert owns_all(SERVICE, managed)


def test_a_set_is_ours_value_by_value() -> None:
    desired = {"metadata": {"finalizers": ["a", "b"]}}
    assert owns_all(desired, {"f:metadata": {"f:finalizers": {'v:"a"': {}, 'v:"b"': {}}}})
    assert not owns_all(desired, {"f:metadata": {"f:finalizers": {'v:"a"': {}}}})


def test_an_empty_value_that_we_set_must_be_ours_too() -> None:
    desired = {"spec": {"emptyDir": {}}}
    assert owns_all(desired, {"f:spec": {"f:emptyDir": {}}})
    assert not owns_all(desired, {"f:spec": {".": {}}})
