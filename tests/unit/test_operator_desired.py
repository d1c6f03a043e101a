"""The children themselves: security, sizes, selectors, what each pod can see."""

from __future__ import annotations

import json
import re
import signal
import subprocess
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import yaml
from fakes.operator_world import MINIMAL, World, golden_spec

from chatbot_core import names, quantity
from chatbot_core.runtime_config import RuntimeConfig, S3Store
from chatbot_operator.desired import database, documents
from chatbot_operator.desired.secrets import RESTART_WHEN_CHANGED
from chatbot_operator.model import Apply, CreateSecret, Json, Scale

FULL = golden_spec("everything-set")
S3 = golden_spec("s3-documents")
EXTERNAL = golden_spec("external-database")
SPECS = {"minimal": MINIMAL, "full": FULL, "s3": S3, "external": EXTERNAL}
DEPLOY = Path(__file__).resolve().parents[2] / "deploy" / "operator.yaml"


def world_of(spec: Json, name: str = "docs") -> World:
    world = World(spec=spec, name=name)
    world.given_secret("our-admin", "username", "password")
    world.given_secret("our-bucket", "accessKeyId", "secretAccessKey")
    world.given_secret("our-database", "uri").given_secret("our-ca", "ca.crt")
    return world.created()


def objects(spec: Json, name: str = "docs") -> dict[tuple[str, str], Json]:
    return world_of(spec, name).objects


def pods_of(spec: Json) -> dict[str, Json]:
    """Return every pod template by `kind/name`."""
    return {
        "/".join(key): one["spec"]["template"]
        for key, one in objects(spec).items()
        if "template" in one.get("spec", {})
    }


def containers(template: Json) -> list[Json]:
    spec = template["spec"]
    found: list[Json] = [*spec.get("initContainers", []), *spec["containers"]]
    return found


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
def test_every_pod_is_restricted(spec: Json) -> None:
    templates = pods_of(spec)
    assert len(templates) >= 6
    for name, template in templates.items():
        pod = template["spec"]
        assert pod["automountServiceAccountToken"] is False, name
        assert pod["serviceAccountName"] == "docs-runtime", name
        security = pod["securityContext"]
        assert security["runAsNonRoot"] is True, name
        assert security["runAsUser"] == (999 if "database" in name else 10001), name
        assert security["seccompProfile"] == {"type": "RuntimeDefault"}, name
        for volume in pod["volumes"]:
            assert len(set(volume) & {"hostPath", "secret"}) == 0, name
        for container in containers(template):
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }, name
            resources = container["resources"]
            assert set(resources["requests"]) == {"cpu", "memory"}, name
            assert "memory" in resources["limits"], name
            assert spec is FULL or set(resources["limits"]) == {"memory"}, name
            assert not any("secretKeyRef" in str(one) for one in container.get("env", [])), name


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
def test_every_serving_container_has_its_three_probes(spec: Json) -> None:
    for name, template in pods_of(spec).items():
        if name.startswith("Job/"):
            continue
        for container in template["spec"]["containers"]:
            probes = {"startupProbe", "livenessProbe", "readinessProbe"}
            assert probes <= set(container), name
            assert container["livenessProbe"] != container["readinessProbe"], name


def test_the_minimal_object_and_the_operator_fit_a_small_machine() -> None:
    plan = World().read_secrets().plan()
    replicas = {(s.kind, s.name): s.replicas for s in plan.steps if isinstance(s, Scale)}
    (operator,) = [
        one for one in yaml.safe_load_all(DEPLOY.read_text()) if one["kind"] == "Deployment"
    ]
    own = operator["spec"]["template"]["spec"]["containers"][0]["resources"]["requests"]
    cpu = quantity.parse(own["cpu"]) * operator["spec"]["replicas"]
    memory = quantity.to_bytes(own["memory"]) * operator["spec"]["replicas"]
    for key, one in objects(MINIMAL).items():
        if "template" not in one.get("spec", {}):
            continue
        for container in containers(one["spec"]["template"]):
            if container["name"] == "ollama":
                continue
            asked = container["resources"]["requests"]
            cpu += quantity.parse(asked["cpu"]) * replicas.get(key, 1)
            memory += quantity.to_bytes(asked["memory"]) * replicas.get(key, 1)
    assert cpu <= Decimal("0.9")
    assert memory <= 3 * 2**30


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
def test_selectors_are_the_three_labels_and_never_overlap(spec: Json) -> None:
    seen: dict[str, str] = {}
    for (kind, name), one in objects(spec).items():
        if kind not in {"Deployment", "StatefulSet"}:
            continue
        selector = one["spec"]["selector"]["matchLabels"]
        assert set(selector) == {
            "app.kubernetes.io/name",
            "app.kubernetes.io/instance",
            "app.kubernetes.io/component",
        }
        assert selector.items() <= one["spec"]["template"]["metadata"]["labels"].items()
        assert seen.setdefault(selector["app.kubernetes.io/component"], name) == name


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
def test_the_version_stands_on_top_level_metadata_only(spec: Json) -> None:
    for (kind, name), one in objects(spec).items():
        rest = {**one, "metadata": {}, "data": {}}
        assert names.LABEL_VERSION not in str(rest), name
        labels = one["metadata"]["labels"]
        lasting = names.LABEL_RETAINED_FROM in labels
        assert (names.LABEL_VERSION in labels) is not lasting, (kind, name)


def test_stateful_sets_never_wait_for_a_broken_neighbour() -> None:
    for (kind, name), one in objects(FULL).items():
        if kind == "StatefulSet":
            assert one["spec"]["podManagementPolicy"] == "Parallel"
            assert one["spec"]["updateStrategy"] == {"type": "RollingUpdate"}
            assert one["spec"]["serviceName"] == name


def test_every_shard_has_a_headless_service_that_shows_it_while_it_loads() -> None:
    for index in range(3):
        service = objects(FULL)["Service", f"docs-shard-{index}"]["spec"]
        assert service["clusterIP"] == "None"
        assert service["publishNotReadyAddresses"] is True
        assert service["selector"][names.LABEL_COMPONENT] == f"shard-{index}"


def test_the_longest_allowed_names_still_fit() -> None:
    store = "s" * 16
    spec: Json = {**MINIMAL, "documents": {"stores": [{"name": store, "pvc": {}}]}}
    for kind, name in objects(spec, name="c" * names.NAME_MAX_LENGTH):
        # A set's revision label is its name and eleven characters.
        assert len(name) <= (52 if kind == "StatefulSet" else 63), (kind, name)


def files_of(template: Json) -> set[str]:
    volume = next(one for one in template["spec"]["volumes"] if one["name"] == "secrets")
    return {
        item["path"]
        for source in volume["projected"]["sources"]
        for item in source["secret"]["items"]
    }


def test_a_role_sees_the_secrets_it_needs_and_no_other() -> None:
    always = {names.FILE_DSN, names.FILE_INTERNAL_TOKEN}
    store = {names.FILE_ACCESS_KEY_ID, names.FILE_SECRET_ACCESS_KEY}
    admin = {names.FILE_ADMIN_USERNAME, names.FILE_ADMIN_PASSWORD}
    seen = {name: files_of(template) for name, template in pods_of(MINIMAL).items()}
    job = next(name for name in seen if name.startswith("Job/"))
    assert seen == {
        "StatefulSet/docs-database": {"password", "superuser-password"},
        "Deployment/docs-store-main": {"accessKeyId", "secretAccessKey"},
        job: always,
        "StatefulSet/docs-shard-0": always,
        "StatefulSet/docs-shard-1": always,
        "Deployment/docs-inference": always,
        "Deployment/docs-ingest": always | store,
        "Deployment/docs-api": always | store | admin,
    }


def test_an_external_database_brings_its_own_certificate() -> None:
    files = files_of(pods_of(EXTERNAL)["StatefulSet/docs-shard-0"])
    assert files == {names.FILE_DSN, names.FILE_DATABASE_CA, names.FILE_INTERNAL_TOKEN}
    assert ("StatefulSet", "docs-database") not in objects(EXTERNAL)
    assert ("PersistentVolumeClaim", "docs-database") not in objects(EXTERNAL)


def test_a_bucket_needs_no_gateway_and_no_claim() -> None:
    kinds = {kind for kind, name in objects(S3) if "store" in name}
    assert kinds == set()
    document = world_of(S3).config()
    assert document.boot.api.stores == (
        S3Store(
            name="main",
            bucket="team-a-documents",
            endpoint="https://s3.example.com",
            region="eu-central-1",
            prefix="docs/",
            path_style=True,
            server_side_encryption="AES256",
        ),
    )


def test_the_config_is_the_spec_in_the_runtime_s_words() -> None:
    document = world_of(FULL).config()
    assert document.live.model_dump() == {
        "ingest": {
            "chunk_size_characters": 800,
            "chunk_overlap_characters": 80,
            "max_parallel_chunks": 4,
            "max_document_size_bytes": 10 * 2**20,
        },
        "retrieval": {
            "shards": 3,
            "replicas_per_shard": 2,
            "min_coverage_percent": 90,
            "min_passages": 2,
            "max_passages": 6,
        },
        "inference": {
            "model": "llama3.2:3b",
            "max_waiting": 8,
            "max_wait_s": 10,
            "max_answer_s": 60,
            "max_output_tokens": 256,
            "temperature_percent": 20,
            "seed": 7,
            "context_tokens": 8192,
        },
        "answer_mode": "Extract",
        "self_test": {"wanted": ""},
    }
    assert document.boot.inference_proxy.model_dump(exclude_defaults=True) == {
        "model": "llama3.2:3b",
        "parallel_requests": 4,
        "context_tokens": 8192,
        "keep_loaded": False,
        "drain_s": 90,
    }


def test_the_config_map_parses_as_the_runtime_parses_it() -> None:
    held = objects(MINIMAL)["ConfigMap", "docs-config"]["data"]
    document = RuntimeConfig.model_validate_json(held[names.CONFIG_KEY])
    assert (document.cluster, document.namespace) == ("docs", "team-a")
    assert json.loads(held[names.CHOICE_KEY])["version"] == document.runtime_version


def test_the_pods_do_not_see_the_operator_s_choice() -> None:
    for name, template in pods_of(MINIMAL).items():
        for volume in template["spec"]["volumes"]:
            if "configMap" in volume:
                assert volume["configMap"]["items"] == [
                    {"key": names.CONFIG_KEY, "path": names.CONFIG_KEY}
                ], name


def test_ollama_starts_before_the_proxy_and_ends_after_it() -> None:
    pod = pods_of(EXTERNAL)["Deployment/docs-inference"]["spec"]
    (ollama,) = pod["initContainers"]
    assert ollama["restartPolicy"] == "Always"
    assert ollama["image"] == "registry.example/ollama-smollm2:1"
    environment = {one["name"]: one["value"] for one in ollama["env"]}
    assert environment["OLLAMA_HOST"] == "127.0.0.1:11434"
    assert environment["OLLAMA_MODELS"] == "/models"
    # The image holds the model: nothing may be mounted over it.
    assert "/models" not in [one["mountPath"] for one in ollama["volumeMounts"]]
    pulled = pods_of(MINIMAL)["Deployment/docs-inference"]["spec"]["initContainers"][0]
    assert "/models" in [one["mountPath"] for one in pulled["volumeMounts"]]


def turnover(**managed: Any) -> tuple[int, int]:
    """Return how many inference pods a roll-out may have too few and too many."""
    found = objects({"inference": {"model": "smollm2:135m", "managed": managed}})
    rolling = found["Deployment", "docs-inference"]["spec"]["strategy"]["rollingUpdate"]
    return rolling["maxUnavailable"], rolling["maxSurge"]


def test_inference_surges_where_it_may_find_room_and_says_which_where_it_is_told() -> None:
    surge, replace = (0, 1), (1, 0)
    gpu = {"pod": {"resources": {"limits": {"nvidia.com/gpu": "1"}}}}
    assert turnover() == surge
    assert turnover(**gpu) == replace
    assert turnover(**gpu, scaling={"minReplicas": 2}) == surge
    assert turnover(**gpu, rollout="Surge") == surge
    assert turnover(rollout="Replace") == replace


def test_only_a_tier_of_several_pods_has_a_budget() -> None:
    budgets = [name for kind, name in objects(MINIMAL) if kind == "PodDisruptionBudget"]
    assert budgets == ["docs-api"]
    assert objects(MINIMAL)["PodDisruptionBudget", "docs-api"]["spec"] == {
        "maxUnavailable": 1,
        "selector": objects(MINIMAL)["Deployment", "docs-api"]["spec"]["selector"],
        "unhealthyPodEvictionPolicy": "AlwaysAllow",
    }


def test_the_api_is_never_short_of_a_pod() -> None:
    found = objects(MINIMAL)
    assert found["Deployment", "docs-api"]["spec"]["strategy"]["rollingUpdate"] == {
        "maxUnavailable": 0,
        "maxSurge": 1,
    }
    assert found["Deployment", "docs-store-main"]["spec"]["strategy"] == {"type": "Recreate"}


def test_pods_have_the_drain_time_to_end_their_answers_once_nobody_new_comes() -> None:
    templates = pods_of(FULL)
    api, inference = (templates[f"Deployment/docs-{tier}"]["spec"] for tier in ("api", "inference"))
    leave = {"preStop": {"sleep": {"seconds": 5}}}
    assert (
        api["terminationGracePeriodSeconds"],
        api["containers"][0]["lifecycle"],
        inference["terminationGracePeriodSeconds"],
    ) == (90 + 5, leave, 90)


def test_the_roles_are_started_as_the_command_line_expects() -> None:
    commands: dict[str, Any] = {
        name: template["spec"]["containers"][0]["command"]
        for name, template in pods_of(MINIMAL).items()
    }
    config = ["--config", "/etc/chatbot/config/runtime.json"]
    assert commands["Deployment/docs-api"] == ["chatbot-runtime", "api", *config]
    assert commands["StatefulSet/docs-shard-1"] == [
        "chatbot-runtime",
        "shard",
        *config,
        "--index",
        "1",
    ]


def test_the_database_secret_opens_the_database_of_this_namespace() -> None:
    plan = World().read_secrets().plan()
    made = {step.name: step.recipe for step in plan.steps if isinstance(step, CreateSecret)}
    recipe = made["docs-database"]
    drawn = {key: "x" * length for key, length in recipe.random} | dict(recipe.fixed)
    dsn = dict(recipe.templates)["dsn"].format(**drawn)
    assert dsn == f"postgresql://chatbot:{'x' * 32}@docs-database.team-a.svc:5432/chatbot"


@pytest.mark.parametrize(("shell", "script"), [("bash", database.START), ("sh", documents.START)])
def test_the_start_scripts_are_shell_and_hold_no_secret(shell: str, script: str) -> None:
    subprocess.run([shell, "-n"], input=script.encode(), check=True)
    assert re.search(r"set -eu", script)


@pytest.mark.parametrize("shell", ["bash", "sh"])
def test_a_program_that_reads_secrets_once_ends_when_they_change(
    shell: str, tmp_path: Path
) -> None:
    key = tmp_path / "key"
    key.write_text("old")
    watching = RESTART_WHEN_CHANGED.replace(names.SECRETS_DIR, str(tmp_path))
    script = f"set -eu\n{watching}exec sleep 30".replace("sleep 10", "sleep 0.1")
    with subprocess.Popen([shell, "-c", script]) as program:
        with pytest.raises(subprocess.TimeoutExpired):
            program.wait(0.6)
        key.write_text("new")
        assert program.wait(5) == -signal.SIGINT


def test_the_image_of_a_migration_is_part_of_its_name() -> None:
    def job(world: World) -> str:
        return next(name for kind, name in world.created().objects if kind == "Job")

    one = job(World())
    shards = job(World(spec={**MINIMAL, "retrieval": {"shards": 3}}))
    settings = World().settings
    other = World(settings=type(settings)("other:2", "2", "d", "s", "o"))
    assert len({one, shards, job(other)}) == 3
    assert re.fullmatch(r"docs-migrate-[0-9a-f]{8}", one)


def test_the_steps_of_a_plan_are_applies_of_whole_objects() -> None:
    for step in World().read_secrets().plan().steps:
        if isinstance(step, Apply):
            assert {"apiVersion", "kind", "metadata"} <= set(step.object)
