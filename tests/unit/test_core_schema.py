from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from chatbot_core.v1alpha1.fields import Edit
from chatbot_core.v1alpha1.schema import custom_resource_definition

CRD_FILE = Path(__file__).parents[2] / "crds" / "chatbot.i4c.io_chatbotclusters.yaml"
CRD = custom_resource_definition()
SCHEMA = CRD["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]


def _nodes(node: dict[str, Any], path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    yield path, node
    for name, child in node.get("properties", {}).items():
        yield from _nodes(child, f"{path}.{name}")
    for mark, below in (("[]", "items"), ("{}", "additionalProperties")):
        if below in node:
            yield from _nodes(node[below], f"{path}{mark}")


NODES = [*_nodes(SCHEMA["spec"], "spec"), *_nodes(SCHEMA["status"], "status")]
#: Fields that hold a value: a scalar, or a list or map of scalars.
LEAVES = [
    (path, node)
    for path, node in NODES
    if path.startswith("spec")
    and not path.endswith(("[]", "{}"))
    and "properties" not in {**node, **node.get("items", {})}
]
CRD_SIZE_BYTES = 200_000


def test_every_list_and_string_is_bounded() -> None:
    unbounded = [
        path
        for path, node in NODES
        if (node.get("type") in {"string", None} and not {"maxLength", "enum"} & node.keys())
        or (node.get("type") == "array" and "maxItems" not in node)
        or ("additionalProperties" in node and "maxProperties" not in node)
    ]
    assert unbounded == []


def test_no_number_is_a_float_and_every_spec_number_is_bounded() -> None:
    wrong = [
        path
        for path, node in NODES
        if node.get("type") == "number"
        or (
            path.startswith("spec")
            and node.get("type") == "integer"
            and not {"minimum", "maximum"} <= node.keys()
        )
    ]
    assert wrong == []


def test_every_leaf_says_what_an_edit_does() -> None:
    silent = [
        path
        for path, node in LEAVES
        if not any(node.get("description", "").endswith(f"Edit: {edit}.") for edit in Edit)
    ]
    assert silent == []


def test_every_list_says_how_it_merges() -> None:
    assert [
        path
        for path, node in NODES
        if node.get("type") == "array" and "x-kubernetes-list-type" not in node
    ] == []


def test_every_map_says_which_keys_it_takes() -> None:
    assert [
        path
        for path, node in NODES
        if "additionalProperties" in node and "x-kubernetes-validations" not in node
    ] == []


def test_the_definition_stays_small_enough_for_every_client() -> None:
    assert CRD_FILE.stat().st_size < CRD_SIZE_BYTES


def test_nothing_about_pods_can_widen_their_rights() -> None:
    forbidden = {
        "securityContext",
        "hostNetwork",
        "hostPID",
        "hostIPC",
        "hostPath",
        "volumes",
        "volumeMounts",
        "command",
        "args",
        "ports",
        "serviceAccountName",
        "automountServiceAccountToken",
        "capabilities",
        "privileged",
        "valueFrom",
        "envFrom",
        "initContainers",
        "schedulerName",
        "nodeName",
    }
    assert [path for path, _ in NODES if path.rsplit(".", 1)[-1] in forbidden] == []


def test_a_fresh_object_is_never_taken_for_healthy() -> None:
    assert SCHEMA["status"]["default"] == {"observedGeneration": -1}


def test_a_minimal_object_needs_a_model_only() -> None:
    required = {path: node["required"] for path, node in NODES if "required" in node}
    assert (SCHEMA["spec"]["required"], required["spec.inference"]) == (["inference"], ["model"])
