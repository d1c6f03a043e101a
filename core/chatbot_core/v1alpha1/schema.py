"""The CustomResourceDefinition, made from the models: structural, bounded, with CEL.

Kubernetes wants a structural schema (no `$ref`, no `anyOf` with null, `default` on every object
that holds defaults) where pydantic gives plain JSON Schema 2020-12. Rules:
https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definitions/
"""

from __future__ import annotations

from typing import Any, Final

from pydantic import BaseModel

from chatbot_core import names
from chatbot_core.errors import Bug
from chatbot_core.v1alpha1.fields import Object
from chatbot_core.v1alpha1.spec import ROOT_RULES, ChatbotClusterSpec
from chatbot_core.v1alpha1.status import ChatbotClusterStatus

_COPIED: Final = (
    "description",
    "type",
    "format",
    "enum",
    "pattern",
    "minimum",
    "maximum",
    "minLength",
    "maxLength",
    "minItems",
    "maxItems",
    "maxProperties",
    "x-kubernetes-list-type",
    "x-kubernetes-list-map-keys",
    "x-kubernetes-validations",
    "x-kubernetes-int-or-string",
)
_COLUMNS: Final = (
    ("Ready", "string", '.status.conditions[?(@.type=="Ready")].status', 0),
    ("Reason", "string", '.status.conditions[?(@.type=="Ready")].reason', 0),
    ("API", "integer", '.status.tiers[?(@.name=="api")].readyReplicas', 0),
    ("Shards", "integer", '.status.tiers[?(@.name=="retrieval")].readyReplicas', 0),
    ("Inference", "integer", '.status.tiers[?(@.name=="inference")].readyReplicas', 0),
    ("Documents", "integer", ".status.retrieval.documents", 0),
    ("Age", "date", ".metadata.creationTimestamp", 0),
    ("Version", "string", ".status.version", 1),
    ("Model", "string", ".status.model.name", 1),
    ("Endpoint", "string", ".status.endpoint", 1),
)


def custom_resource_definition() -> dict[str, Any]:
    """Return the whole CRD as a dict in the order that people read it."""
    columns = [
        {"name": name, "type": kind, "jsonPath": path} | ({"priority": rank} if rank else {})
        for name, kind, path, rank in _COLUMNS
    ]
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{names.PLURAL}.{names.GROUP}"},
        "spec": {
            "group": names.GROUP,
            "scope": "Namespaced",
            "names": {
                "kind": names.KIND,
                "listKind": f"{names.KIND}List",
                "plural": names.PLURAL,
                "singular": names.SINGULAR,
                "shortNames": [names.SHORT_NAME],
                "categories": ["all"],
            },
            "versions": [
                {
                    "name": names.VERSION,
                    "served": True,
                    "storage": True,
                    "subresources": {"status": {}},
                    "additionalPrinterColumns": columns,
                    "schema": {"openAPIV3Schema": _root()},
                }
            ],
        },
    }


def _root() -> dict[str, Any]:
    # kstatus takes an object without status for healthy; this default says that nobody has looked.
    status: dict[str, Any] = _without_defaults(structural(ChatbotClusterStatus))
    status["default"] = {"observedGeneration": -1}
    return {
        "description": "One whole document-chat service: API, shards, inference, ingest, storage.",
        "type": "object",
        "required": ["spec"],
        "properties": {
            "apiVersion": {"type": "string"},
            "kind": {"type": "string"},
            "metadata": {"type": "object"},
            "spec": structural(ChatbotClusterSpec),
            "status": status,
        },
        "x-kubernetes-validations": [_rule(*rule) for rule in ROOT_RULES],
    }


def structural(model: type[BaseModel]) -> dict[str, Any]:
    """Return the structural schema of a model. Raises Bug for what Kubernetes cannot express."""
    schema = model.model_json_schema(by_alias=True)
    return _convert(schema, schema.get("$defs", {}))


def _rule(rule: str, message: str, path: str) -> dict[str, Any]:
    return {"rule": rule, "message": message} | ({"fieldPath": path} if path else {})


def _convert(node: dict[str, Any], defs: dict[str, Any], edit: str = "") -> dict[str, Any]:
    """Convert a node; `edit` is the word of an object above whose leaves state none."""
    if node.get("x-kubernetes-int-or-string"):
        return {key: node[key] for key in ("anyOf", *_COPIED) if key in node}
    node = _resolved(node, defs)
    edit = node.get("x-edit-below", edit)
    result: dict[str, Any] = {key: node[key] for key in _COPIED if key in node}
    if "description" in node:
        result["description"] = " ".join(node["description"].split())
    if edit and "description" in node and "x-edit" not in node and "properties" not in node:
        result["description"] += f" Edit: {edit}."
    if "const" in node:
        result |= {"enum": [node["const"]]}
    if node.get("type") == "integer":
        result["format"] = "int64" if node.get("maximum", 2**31) >= 2**31 else "int32"
    if node.get("type") == "array":
        result["items"] = _convert(node["items"], defs, edit)
        result.setdefault("x-kubernetes-list-type", "atomic")
    if node.get("type") == "object":
        result |= _properties(node, defs, edit)
    if "default" in node and node["default"] is not None:
        # In full, also for objects: CEL rules are evaluated on the stated default alone.
        result["default"] = _present(node["default"])
    if "type" not in result:
        raise Bug(f"the schema of {node.get('title', node)} has no single type")
    return result


def _without_defaults(node: Any) -> Any:
    """Return the schema of what only the operator writes: nothing is filled in for it."""
    if isinstance(node, dict):
        return {key: _without_defaults(item) for key, item in node.items() if key != "default"}
    return [_without_defaults(item) for item in node] if isinstance(node, list) else node


def _present(value: Any) -> Any:
    """Return a default without nulls: Kubernetes knows absent fields only."""
    if isinstance(value, dict):
        return {key: _present(item) for key, item in value.items() if item is not None}
    return [_present(item) for item in value] if isinstance(value, list) else value


def _properties(node: dict[str, Any], defs: dict[str, Any], edit: str) -> dict[str, Any]:
    if "additionalProperties" in node and "properties" not in node:
        return {"additionalProperties": _convert(node["additionalProperties"], defs)}
    properties = {name: _convert(child, defs, edit) for name, child in node["properties"].items()}
    result: dict[str, Any] = {"properties": properties}
    if node.get("required"):
        result["required"] = list(node["required"])
    rules = [_rule(*rule) for rule in _rules(node["title"])]
    if rules:
        result["x-kubernetes-validations"] = rules
    return result


def _resolved(node: dict[str, Any], defs: dict[str, Any]) -> dict[str, Any]:
    """Return the node with its `$ref` inlined and `anyOf: [X, null]` reduced to X."""
    if "anyOf" in node:
        options = [option for option in node["anyOf"] if option.get("type") != "null"]
        if len(options) != 1:
            raise Bug(f"{node} is a union; state it by presence")
        node = options[0] | {key: node[key] for key in node if key != "anyOf"}
    if "$ref" in node:
        target = defs[node["$ref"].removeprefix("#/$defs/")]
        node = target | {key: node[key] for key in node if key != "$ref"}
    return node


def _rules(title: str) -> tuple[tuple[str, str, str], ...]:
    return next(model.RULES for model in _models(Object) if model.__name__ == title)


def _models(root: type[Object]) -> list[type[Object]]:
    found = [root]
    for child in root.__subclasses__():
        found += _models(child)
    return found
