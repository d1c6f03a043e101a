from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from chatbot_core.v1alpha1.fields import Edit
from chatbot_core.v1alpha1.schema import custom_resource_definition

CRD = custom_resource_definition()
SCHEMA = CRD["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]


def _nodes(node: dict[str, Any], path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    yield path, node
    for name, child in node.get("properties", {}).items():
        yield from _nodes(child, f"{path}.{name}")
    if "items" in node:
        yield from _nodes(node["items"], f"{path}[]")


NODES = [*_nodes(SCHEMA["spec"], "spec"), *_nodes(SCHEMA["status"], "status")]
LEAVES = [
    (path, node) for path, node in NODES if path.startswith("spec") and "properties" not in node
]


def test_every_list_and_string_is_bounded() -> None:
    unbounded = [
        path
        for path, node in NODES
        if (node["type"] == "string" and not {"maxLength", "enum"} & node.keys())
        or (node["type"] == "array" and "maxItems" not in node)
    ]
    assert unbounded == []


def test_no_number_is_a_float_and_every_spec_number_is_bounded() -> None:
    wrong = [
        path
        for path, node in NODES
        if node["type"] == "number"
        or (
            path.startswith("spec")
            and node["type"] == "integer"
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
        if node["type"] == "array" and "x-kubernetes-list-type" not in node
    ] == []


def test_a_fresh_object_is_never_taken_for_healthy() -> None:
    assert SCHEMA["status"]["default"] == {"observedGeneration": -1}


def test_a_minimal_object_needs_a_model_only() -> None:
    required = {path: node["required"] for path, node in NODES if "required" in node}
    assert (SCHEMA["spec"]["required"], required["spec.inference"]) == (["inference"], ["model"])
