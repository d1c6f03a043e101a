"""Puts the images that were built here into the manifests. Pure."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from typing import Any

OPERATOR_IMAGES = {
    "RUNTIME_IMAGE": "runtime",
    "DATABASE_IMAGE": "database",
    "STORE_IMAGE": "s3-gateway",
    "OLLAMA_IMAGE": "ollama-smollm2",
}
MODEL_IMAGE = "ollama-smollm2"


def operator(objects: Iterable[Any], images: Mapping[str, str]) -> list[Any]:
    """Return the operator's objects with these images: its own and those it hands on.

    An image that was not built here keeps the public name that the manifest has.
    """
    return [_deployment(one, images) if one["kind"] == "Deployment" else one for one in objects]


def _deployment(given: Any, images: Mapping[str, str]) -> Any:
    deployment = copy.deepcopy(given)
    for container in deployment["spec"]["template"]["spec"]["containers"]:
        container["image"] = images["operator"]
        for variable in container.get("env", []):
            built = images.get(OPERATOR_IMAGES.get(variable["name"], ""))
            if built:
                variable["value"] = built
    return deployment


def cluster(given: Any, images: Mapping[str, str]) -> Any:
    """Return a ChatbotCluster whose model comes out of the built image, or else is pulled."""
    changed = copy.deepcopy(given)
    managed = changed["spec"]["inference"].setdefault("managed", {})
    if MODEL_IMAGE in images:
        managed.update(source="Image", image=images[MODEL_IMAGE])
    else:
        managed["source"] = "Pull"
        managed.pop("image", None)
    return changed


def namespaces(objects: Iterable[Any]) -> tuple[str, ...]:
    """Return the namespaces that the objects live in, in order of appearance."""
    found = (one["metadata"].get("namespace") for one in objects)
    return tuple(dict.fromkeys(name for name in found if name))
