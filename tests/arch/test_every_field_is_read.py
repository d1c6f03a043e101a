"""No field is accepted and ignored, and each says truly what its edit does.

Every leaf of the schema is changed once; the plan must differ, and the pods that would restart
must be those that the words behind `Edit:` name.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from chatbot_core.v1alpha1.fields import INT32_MAX, Edit
from chatbot_core.v1alpha1.schema import custom_resource_definition
from chatbot_operator.model import (
    Apply,
    Child,
    Fact,
    Observed,
    OperatorSettings,
    Owner,
    Plan,
    Scale,
    Secret,
)
from chatbot_operator.plan import plan

SETTINGS = OperatorSettings("runtime:1", "0.1.0", "database:1", "store:1", "ollama:1")
S3 = {
    "bucket": "docs",
    "prefix": "a/",
    "region": "eu-central-1",
    "endpoint": "https://s3.example.com",
    "pathStyle": False,
    "credentialsSecretRef": {"name": "s3"},
    "serverSideEncryption": "AES256",
    "allowInsecure": False,
}
#: What every tier may state of its pods.
POD = {
    "nodeSelector": {"disk": "fast"},
    "tolerations": [
        {
            "key": "gpu",
            "operator": "Equal",
            "value": "yes",
            "effect": "NoExecute",
            "tolerationSeconds": 60,
        }
    ],
    "topologySpreadConstraints": [
        {"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "ScheduleAnyway"}
    ],
    "priorityClassName": "high",
    "runtimeClassName": "nvidia",
    "labels": {"team": "a"},
    "annotations": {"team": "a"},
    "env": [{"name": "MODE", "value": "a"}],
}
TIER_POD = {
    **POD,
    "resources": {"requests": {"cpu": "500m"}, "limits": {"memory": "20Gi"}},
}
_PLACE = {
    "topologyKey": "zone",
    "labelSelector": {
        "matchLabels": {"app": "a"},
        "matchExpressions": [{"key": "app", "operator": "In", "values": ["a"]}],
    },
    "matchLabelKeys": ["app"],
}
_NODES = {"matchExpressions": [{"key": "disk", "operator": "In", "values": ["fast"]}]}
_NEIGHBOURS = {
    "requiredDuringSchedulingIgnoredDuringExecution": [_PLACE],
    "preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 1, "podAffinityTerm": _PLACE}],
}
CLUSTER_POD = {
    **POD,
    "affinity": {
        "nodeAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [_NODES]},
            "preferredDuringSchedulingIgnoredDuringExecution": [
                {"weight": 1, "preference": _NODES}
            ],
        },
        "podAffinity": _NEIGHBOURS,
        "podAntiAffinity": _NEIGHBOURS,
    },
    "serviceAccountAnnotations": {"role": "a"},
}
ENDPOINT = {
    "name": "gpu",
    "url": "https://ollama.example.com",
    "allowInsecure": False,
    "parallelRequests": 4,
    "caSecretRef": {"name": "ollama", "key": "ca.crt"},
    "tokenSecretRef": {"name": "ollama", "key": "token"},
}
#: Objects that state every field between them: each side of every union, and the defaults of
#: pods where no tier states its own.
OBJECTS: tuple[dict[str, Any], ...] = (
    {
        "version": "0.1",
        "image": {"repository": "registry.example/runtime", "pullPolicy": "Always"},
        "deletionPolicy": "Retain",
        "suspend": False,
        "operatorClass": "team-a",
        "imagePullSecrets": [{"name": "registry"}],
        "proxy": {
            "httpProxy": "http://proxy:1",
            "httpsProxy": "http://proxy:2",
            "noProxy": [".example.com"],
        },
        "api": {"scaling": {"minReplicas": 2}, "pod": TIER_POD},
        "ingest": {
            "scaling": {"minReplicas": 1},
            "chunkSizeCharacters": 500,
            "chunkOverlapCharacters": 50,
            "maxParallelChunks": 10,
            "maxDocumentSize": "50Mi",
            "pod": TIER_POD,
        },
        "retrieval": {
            "shards": 2,
            "replicasPerShard": 1,
            "minCoveragePercent": 100,
            "minPassages": 3,
            "maxPassages": 10,
            "storage": {"size": "10Gi", "storageClassName": "fast"},
            "pod": TIER_POD,
        },
        "inference": {
            "model": "smollm2:135m",
            "managed": {
                "source": "Pull",
                "rollout": "Replace",
                "image": "ollama:2",
                "scaling": {"minReplicas": 1},
                "parallelRequests": 2,
                "contextTokens": 4096,
                "idle": "Keep",
                "options": {"temperaturePercent": 0, "maxOutputTokens": 512, "seed": 0},
                "modelCache": {"size": "20Gi", "storageClassName": "fast"},
                "pod": TIER_POD,
            },
            "queue": {"maxWaiting": 32, "maxWaitSeconds": 30},
            "maxAnswerSeconds": 120,
            "drainSeconds": 150,
        },
        "documents": {
            "stores": [{"name": "main", "pvc": {"size": "10Gi", "storageClassName": "fast"}}]
        },
        "database": {"managed": {"size": "10Gi", "storageClassName": "fast", "pod": TIER_POD}},
        "answer": {"mode": "Generate"},
        "access": {"adminSecretRef": {"name": "admin"}},
        "selfTest": "OnChange",
    },
    {
        "image": {"digest": f"sha256:{'0' * 64}"},
        "inference": {
            "model": "smollm2:135m",
            "external": {
                "endpoints": [ENDPOINT],
                "protocol": "Ollama",
                "contextTokens": 8192,
                "options": {"temperaturePercent": 0, "maxOutputTokens": 512, "seed": 0},
            },
        },
        "documents": {"stores": [{"name": "main", "s3": S3}]},
        "database": {
            "external": {
                "secretRef": {"name": "pg", "key": "dsn"},
                "caSecretRef": {"name": "pg", "key": "ca.crt"},
            }
        },
    },
    {"pod": CLUSTER_POD, "inference": {"model": "smollm2:135m"}},
)
#: Which pods a word lets restart. An immutable field's edit is refused before it gets here.
ROLLED: dict[Edit, set[str]] = {
    Edit.LIVE: set(),
    Edit.NEW_DATA_ONLY: set(),
    Edit.ROLLS_API: {"api"},
    Edit.ROLLS_SHARDS: {"shard"},
    Edit.ROLLS_INGEST: {"ingest"},
    Edit.ROLLS_OUTWARD: {"api", "ingest", "inference"},
    Edit.ROLLS_INFERENCE: {"inference"},
    Edit.ROLLS_INFERENCE_AND_API: {"api", "inference"},
    Edit.ROLLS_INGEST_AND_API: {"api", "ingest"},
    Edit.ROLLS_DATABASE: {"database"},
    Edit.ROLLS_RUNTIME: {"api", "shard", "ingest", "inference", "migrate"},
    Edit.ROLLS_DATABASE_USERS: {"api", "shard", "ingest", "inference", "migrate"},
    Edit.ROLLS_EVERY_TIER: {"api", "shard", "ingest", "inference", "database", "store", "migrate"},
}
#: Permits what a URL states, or has one value only: it changes the verdict of admission alone.
DECIDES_AT_ADMISSION = {
    "spec.documents.stores[].s3.allowInsecure",
    "spec.inference.external.endpoints[].allowInsecure",
    "spec.inference.external.protocol",
}
#: Another operator's object is never planned; the tests of two operators hold it.
DECIDES_BEFORE_A_PLAN = {"spec.operatorClass"}
#: The plan then holds no pod template to compare; pods keep running.
STOPS_EVERY_WRITE = {"spec.suspend"}


def _leaves(node: dict[str, Any], path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    if "properties" in node:
        for name, child in node["properties"].items():
            yield from _leaves(child, f"{path}.{name}")
    elif "properties" in node.get("items", {}):
        yield from _leaves(node["items"], f"{path}[]")
    else:
        yield path, node


SCHEMA = custom_resource_definition()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
LEAVES = dict(_leaves(SCHEMA["properties"]["spec"], "spec"))


def _edit(node: dict[str, Any]) -> Edit:
    return Edit(node["description"].rsplit("Edit: ", 1)[1].removesuffix("."))


def _steps(path: str) -> list[str | int]:
    parts: list[str | int] = []
    for part in path.removeprefix("spec.").split("."):
        parts.append(part.removesuffix("[]"))
        parts += [0] if part.endswith("[]") else []
    return parts


def _stating(path: str) -> dict[str, Any]:
    for spec in OBJECTS:
        node: Any = spec
        for step in _steps(path):
            node = node[step] if isinstance(step, int) or step in node else None
            if node is None:
                break
        else:
            return spec
    pytest.fail(f"{path}: no object of this test states the field")


def _other(node: dict[str, Any], value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _other(node["additionalProperties"], one) for key, one in value.items()}
    if isinstance(value, list):
        return [_other(node["items"], one) for one in value]
    if "enum" in node:
        return next(choice for choice in node["enum"] if choice != value)
    if isinstance(value, int):
        upper = node.get("maximum", INT32_MAX)
        return not value if isinstance(value, bool) else value + (-1 if value == upper else 1)
    endings = {"500m": "600m", "Gi": "30Gi", "Mi": "60Mi", "/": f"{value}b/"}
    endings |= {"0.1": "0.2", "000": f"{value[:-1]}1", "": f"{value}x"}
    return next(other for end, other in endings.items() if str(value).endswith(end))


def _changed(spec: dict[str, Any], path: str) -> dict[str, Any]:
    # Not deepcopy: the tiers share one dict of pod settings, and one of them is edited.
    edited = json.loads(json.dumps(spec))
    node: Any = edited
    *parents, last = _steps(path)
    for step in parents:
        node = node[step]
    node[last] = _other(LEAVES[path], node[last])
    return edited


def _planned(spec: dict[str, Any]) -> Plan:
    """Return the first plan of an object once every Secret that it names is there."""
    owner = Owner(namespace="default", name="demo", uid="1", generation=1, spec=spec)
    seen = Observed(owner=owner, settings=SETTINGS)
    secrets = {
        wanted.name: Fact(
            Secret(
                Child("Secret", wanted.name, uid="2", owner_uid="1", cluster_uid="1"), wanted.keys
            ),
            at_s=999.0,
            known=True,
        )
        for wanted in plan(seen, 1000.0).wanted_secrets
    }
    return plan(replace(seen, secrets=secrets), 1000.0)


def _decided(made: Plan) -> tuple[Any, ...]:
    return made.steps, made.wanted_secrets, made.refusals


def _templates(made: Plan) -> dict[str, Any]:
    """Return the pod templates by tier; a Job's name is part of it, since it never changes."""
    result: dict[str, Any] = {}
    for step in made.steps:
        if isinstance(step, Apply) and "template" in step.object.get("spec", {}):
            template = step.object["spec"]["template"]
            component = template["metadata"]["labels"]["app.kubernetes.io/component"]
            tier = component.split("-")[0]
            result.setdefault(tier, []).append((step.object["kind"], template))
    return result


@pytest.mark.parametrize(
    "path", sorted(LEAVES.keys() - DECIDES_AT_ADMISSION - DECIDES_BEFORE_A_PLAN)
)
def test_a_change_of_the_field_changes_the_plan(path: str) -> None:
    spec = _stating(path)
    assert _decided(_planned(spec)) != _decided(_planned(_changed(spec, path)))


@pytest.mark.parametrize(
    "path",
    sorted(
        path
        for path, node in LEAVES.items()
        if _edit(node) is not Edit.IMMUTABLE and path not in STOPS_EVERY_WRITE
    ),
)
def test_an_edit_restarts_the_pods_that_its_description_names(path: str) -> None:
    spec = _stating(path)
    before, after = _templates(_planned(spec)), _templates(_planned(_changed(spec, path)))
    rolled = {tier for tier in before.keys() | after if before.get(tier) != after.get(tier)}
    assert rolled == ROLLED[_edit(LEAVES[path])]


def test_a_change_of_replicas_is_a_scale_step_alone() -> None:
    spec = OBJECTS[0]
    before = _planned(spec).steps
    after = _planned(_changed(spec, "spec.api.scaling.minReplicas")).steps
    differing = [new for old, new in zip(before, after, strict=True) if old != new]
    assert [type(step) for step in differing] == [Scale]
