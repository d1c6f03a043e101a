"""What a person states about pods: the merge, the templates, resources, what stays ours."""

from __future__ import annotations

import re
from typing import Any

import httpx
import pytest
from botocore.utils import get_environ_proxies
from fakes.operator_world import MINIMAL, World, golden_spec

from chatbot_core import names, quantity
from chatbot_core.v1alpha1.outward import NEVER_PROXIED
from chatbot_core.v1alpha1.pods import ClusterPod, InferenceResources, Resources, TierPod, merged
from chatbot_operator.desired.stated import resources
from chatbot_operator.model import Json

OURS: Json = {"requests": {"cpu": "100m", "memory": "256Mi"}, "limits": {"memory": "1Gi"}}


def templates(spec: Json) -> dict[str, Json]:
    """Return every pod template by the name of its object."""
    return {
        re.sub("^docs-|(?<=migrate)-.*", "", name): one["spec"]["template"]
        for (kind, name), one in World(spec=spec).created().objects.items()
        if "template" in one.get("spec", {})
    }


def with_tier(tier: str, pod: Json) -> Json:
    spec: Json = {**MINIMAL, "inference": dict(MINIMAL["inference"])}
    if tier in {"inference", "database"}:
        spec[tier] = {**spec.get(tier, {}), "managed": {"pod": pod}}
    else:
        spec[tier] = {"pod": pod}
    return spec


def test_a_tier_goes_before_the_defaults() -> None:
    defaults = ClusterPod.model_validate(
        {
            "nodeSelector": {"zone": "a", "disk": "fast"},
            "labels": {"team": "a"},
            "annotations": {"note": "default"},
            "env": [{"name": "MODE", "value": "a"}, {"name": "LEVEL", "value": "1"}],
            "tolerations": [{"key": "spot", "operator": "Exists"}],
            "priorityClassName": "low",
            "runtimeClassName": "runc",
        }
    )
    tier = TierPod.model_validate(
        {
            "nodeSelector": {"disk": "huge"},
            "labels": {"cost": "b"},
            "env": [{"name": "MODE", "value": "b"}],
            "tolerations": [{"key": "gpu", "operator": "Exists"}],
            "priorityClassName": "high",
        }
    )
    assert merged(defaults, tier).model_dump(by_alias=True, exclude_none=True) == {
        "nodeSelector": {"zone": "a", "disk": "huge"},
        "labels": {"team": "a", "cost": "b"},
        "annotations": {"note": "default"},
        "env": ({"name": "MODE", "value": "b"}, {"name": "LEVEL", "value": "1"}),
        "tolerations": ({"key": "gpu", "operator": "Exists"},),
        "topologySpreadConstraints": (),
        "priorityClassName": "high",
        "runtimeClassName": "runc",
    }


def test_defaults_reach_the_pods_of_every_tier() -> None:
    found = templates({**MINIMAL, "pod": {"nodeSelector": {"pool": "chat"}}})
    tiers = [
        "api",
        "database",
        "inference",
        "ingest",
        "migrate",
        "shard-0",
        "shard-1",
        "store-main",
    ]
    reached = {name: one["spec"].get("nodeSelector") for name, one in found.items()}
    assert reached == {tier: {"pool": "chat"} for tier in tiers}


@pytest.mark.parametrize(
    ("tier", "pods"),
    [
        ("api", {"api"}),
        ("ingest", {"ingest"}),
        ("retrieval", {"shard-0", "shard-1"}),
        ("inference", {"inference"}),
        ("database", {"database"}),
    ],
)
def test_what_a_tier_states_reaches_its_pods_alone(tier: str, pods: set[str]) -> None:
    before = templates(MINIMAL)
    after = templates(with_tier(tier, {"labels": {"team": "a"}}))
    assert {name for name, one in after.items() if one != before[name]} == pods


def test_nothing_stated_leaves_every_template_as_it_was() -> None:
    nothing: Json = {
        "tolerations": [],
        "labels": {},
        "env": [],
        "resources": {"requests": {}, "limits": {}},
    }
    spec = {**with_tier("api", nothing), "pod": {"nodeSelector": {}}}
    assert templates(spec) == templates(MINIMAL)


def test_what_is_stated_stands_in_the_template_as_it_was_written() -> None:
    spread = {"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "ScheduleAnyway"}
    bears = {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}
    pod = {
        "tolerations": [bears],
        "topologySpreadConstraints": [spread],
        "priorityClassName": "high",
        "runtimeClassName": "nvidia",
        "annotations": {"example.com/note": "a"},
        "env": [{"name": "OLLAMA_FLASH_ATTENTION", "value": "1"}],
    }
    before = templates(MINIMAL)["inference"]
    after = templates(with_tier("inference", pod))["inference"]
    own = before["metadata"]["labels"]
    selector = {key: own[key] for key in own if key != names.LABEL_MANAGED_BY}
    expected: Json = {
        "metadata": {
            "labels": own,
            "annotations": {"example.com/note": "a", **before["metadata"]["annotations"]},
        },
        "spec": {
            **before["spec"],
            "tolerations": [bears],
            "topologySpreadConstraints": [{**spread, "labelSelector": {"matchLabels": selector}}],
            "priorityClassName": "high",
            "runtimeClassName": "nvidia",
        },
    }
    for key in ("initContainers", "containers"):
        expected["spec"][key] = [
            {**one, "env": [*one["env"], *pod["env"]]} for one in before["spec"][key]
        ]
    assert after == expected


def test_the_migration_starts_anew_when_the_settings_of_its_pod_change() -> None:
    def job(spec: Json) -> str:
        objects = World(spec=spec).created().objects
        return next(name for kind, name in objects if kind == "Job")

    plain, placed = job(MINIMAL), job({**MINIMAL, "pod": {"nodeSelector": {"pool": "chat"}}})
    annotated = job({**MINIMAL, "pod": {"serviceAccountAnnotations": {"role": "a"}}})
    assert (plain != placed, plain == annotated) == (True, True)


def test_the_service_account_carries_its_annotations_beside_ours() -> None:
    stated = {"eks.amazonaws.com/role-arn": "arn:aws:iam::1:role/chat"}
    world = World(spec={**MINIMAL, "pod": {"serviceAccountAnnotations": stated}}).created()
    found = world.objects["ServiceAccount", "docs-runtime"]["metadata"]["annotations"]
    assert {key: found[key] for key in stated} == stated
    assert set(found) - set(stated) == {names.ANNOTATION_CHOICE, names.ANNOTATION_APPLIED}


@pytest.mark.parametrize(
    ("stated", "expected"),
    [
        ({}, OURS),
        (
            {"requests": {"cpu": "2", "memory": "3Gi"}, "limits": {"cpu": 4, "memory": "4Gi"}},
            {
                "requests": {"cpu": "2", "memory": "3Gi"},
                "limits": {"cpu": "4", "memory": "4Gi"},
            },
        ),
        # A limit below our request: the request follows. A request above our limit: the limit does.
        (
            {"limits": {"memory": "128Mi"}},
            {"requests": {"cpu": "100m", "memory": "128Mi"}, "limits": {"memory": "128Mi"}},
        ),
        (
            {"requests": {"memory": "8Gi"}},
            {"requests": {"cpu": "100m", "memory": "8Gi"}, "limits": {"memory": "8Gi"}},
        ),
        (
            {"limits": {"nvidia.com/gpu": 1}},
            {**OURS, "limits": {"memory": "1Gi", "nvidia.com/gpu": "1"}},
        ),
    ],
)
def test_stated_resources_are_used_as_they_stand(stated: Json, expected: Json) -> None:
    assert resources(OURS, InferenceResources.model_validate(stated)) == expected


@pytest.mark.parametrize("wrong", [True, 1.5, "much", "-1"])
def test_an_amount_is_a_whole_number_or_a_quantity(wrong: Any) -> None:
    with pytest.raises(ValueError, match="limits"):
        Resources.model_validate({"limits": {"cpu": wrong}})


def test_resources_are_those_of_the_main_container() -> None:
    stated = {"resources": {"requests": {"cpu": "7"}}}
    for tier, name in (
        ("api", "api"),
        ("ingest", "ingest"),
        ("retrieval", "shard"),
        ("inference", "ollama"),
        ("database", "postgres"),
    ):
        spec = templates(with_tier(tier, stated))
        asking = {
            container["name"]
            for template in spec.values()
            for key in ("initContainers", "containers")
            for container in template["spec"].get(key, [])
            if container["resources"]["requests"]["cpu"] == "7"
        }
        assert asking == {name}, tier


def test_proxies_reach_the_containers_that_speak_to_what_is_outside() -> None:
    proxy = {"httpsProxy": "http://proxy:3128", "noProxy": [".example.com"]}
    found = {
        (name, container["name"]): {
            one["name"]: one["value"]
            for one in container.get("env", ())
            if one["name"] in names.ENV_PROXIES
        }
        for name, template in templates({**MINIMAL, "proxy": proxy}).items()
        for key in ("initContainers", "containers")
        for container in template["spec"].get(key, [])
    }
    told = {
        "HTTPS_PROXY": "http://proxy:3128",
        "NO_PROXY": "localhost,127.0.0.1,.svc,.svc.cluster.local,.example.com",
    }
    assert {who for who, environment in found.items() if environment} == {
        ("api", "api"),
        ("ingest", "ingest"),
        ("inference", "inference-proxy"),
        ("inference", "ollama"),
    }
    assert all(environment in ({}, told) for environment in found.values())


@pytest.mark.parametrize(
    ("url", "direct"),
    [
        ("http://docs-store-main.team-a.svc:7070/documents", True),
        ("http://docs-store-main.team-a.svc.cluster.local:7070", True),
        ("http://127.0.0.1:11434", True),
        ("https://s3.eu-central-1.amazonaws.com", False),
    ],
)
def test_no_client_asks_a_service_of_the_cluster_through_a_proxy(
    monkeypatch: pytest.MonkeyPatch, url: str, direct: bool
) -> None:
    for name in (*names.ENV_PROXIES, *(name.lower() for name in names.ENV_PROXIES)):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HTTP_PROXY", "http://proxy:3128")
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy:3128")
    monkeypatch.setenv("NO_PROXY", ",".join(NEVER_PROXIED))
    assert (get_environ_proxies(url) == {}) is direct
    with httpx.Client() as client:
        through = client._transport_for_url(httpx.URL(url))
        assert (through is client._transport) is direct


def test_pull_secrets_stand_in_every_pod_and_in_the_name_of_the_migration() -> None:
    world = World(spec={**MINIMAL, "imagePullSecrets": [{"name": "registry"}]}).created()
    pods = [one["spec"]["template"]["spec"] for one in world.objects.values() if _has_pods(one)]
    assert [pod["imagePullSecrets"] for pod in pods] == [[{"name": "registry"}]] * 8
    jobs = {name for kind, name in world.objects if kind == "Job"}
    assert not jobs & set(dict.fromkeys(name for _, name in World().created().objects))


def _has_pods(one: Json) -> bool:
    return "template" in one.get("spec", {})


def test_every_variable_that_we_set_is_refused_by_the_schema() -> None:
    ours = {
        variable["name"]
        for case in ("minimal", "external-database", "s3-documents")
        for template in templates(golden_spec(case)).values()
        for key in ("initContainers", "containers")
        for container in template["spec"].get(key, [])
        for variable in container.get("env", ())
    }
    assert ours <= set(names.ENV_RESERVED)


def test_every_container_keeps_a_memory_limit_whatever_is_stated() -> None:
    for limit in ("1", "64Mi", "2Ti"):
        stated = {"resources": {"requests": {"memory": limit}}}
        for template in templates(with_tier("api", stated)).values():
            for container in template["spec"]["containers"]:
                block = container["resources"]
                asked = quantity.parse(block["requests"]["memory"])
                assert asked <= quantity.parse(block["limits"]["memory"])
