"""Ollamas that are not ours: which children they get, and how one kind takes the other's place."""

from __future__ import annotations

import pytest
from fakes.operator_world import MINIMAL, World, golden_spec

from chatbot_core import names
from chatbot_core.reasons import Reason
from chatbot_core.runtime_config import InferenceProxyBoot, ModelStatus, RuntimeConfig
from chatbot_operator.desired.config import acknowledgements
from chatbot_operator.model import Apply, Child, Delete, Json
from chatbot_operator.safety import answers_go_on

TWO = golden_spec("two-endpoints")
WITH_SECRETS = golden_spec("external-ollama")
MANAGED = ("Deployment", "docs-inference")
WEST, EAST = ("Deployment", "docs-inference-west"), ("Deployment", "docs-inference-east")


def external(*endpoints: Json) -> Json:
    return {"inference": {"model": "smollm2:135m", "external": {"endpoints": list(endpoints)}}}


def endpoint(name: str, **more: object) -> Json:
    return {"name": name, "url": f"https://{name}.example.com", **more}


def removed(world: World) -> list[str]:
    return [step.name for step in world.plan().steps if isinstance(step, Delete)]


def applied_templates(world: World) -> dict[str, Json]:
    return {
        key[1]: one["spec"]["template"]
        for key, one in world.objects.items()
        if key[0] == "Deployment"
    }


def test_no_ollama_of_ours_runs_beside_an_external_one() -> None:
    world = World(spec=TWO).created()
    assert MANAGED not in world.objects
    pod = applied_templates(world)["docs-inference-west"]["spec"]
    assert [one["name"] for one in pod["containers"]] == ["inference-proxy"]
    assert "initContainers" not in pod


def test_the_order_of_the_endpoints_means_nothing() -> None:
    one, other = endpoint("west"), endpoint("east")
    world = World(spec=external(one, other)).ready()
    world.edited(external(other, one))
    assert [step for step in world.plan().steps if isinstance(step, Apply | Delete)] == []


def test_an_edit_of_one_endpoint_rolls_its_proxy_alone() -> None:
    world = World(spec=external(endpoint("west"), endpoint("east"))).ready()
    before = applied_templates(world)
    world.edited(external(endpoint("west", parallelRequests=8), endpoint("east"))).execute()
    after = applied_templates(world)
    assert [name for name in after if before[name] != after[name]] == ["docs-inference-west"]


def test_only_the_proxy_of_an_endpoint_sees_its_secrets() -> None:
    world = World(spec=WITH_SECRETS).given_secret("our-ollama", "ca.crt", "token").created()
    seeing = [key[1] for key, one in world.objects.items() if "our-ollama" in str(one)]
    assert seeing == ["docs-inference-gpu"]
    (volume,) = (
        one
        for one in applied_templates(world)["docs-inference-gpu"]["spec"]["volumes"]
        if one["name"] == "secrets"
    )
    items = [it for one in volume["projected"]["sources"] for it in one["secret"]["items"]]
    paths = [it["path"] for it in items]
    assert paths == ["database/dsn", "internal/token", "endpoint/token", "endpoint/ca.crt"]


def test_the_document_holds_a_section_for_each_endpoint() -> None:
    world = World(spec=WITH_SECRETS).given_secret("our-ollama", "ca.crt", "token").created()
    document = world.config()
    assert document.boot.endpoints == (
        InferenceProxyBoot(
            endpoint="gpu",
            ollama_url="https://ollama.example.com",
            model="smollm2:135m",
            parallel_requests=4,
            context_tokens=8192,
        ),
    )
    live = document.live.inference
    assert (live.context_tokens, live.temperature_percent, live.max_output_tokens, live.seed) == (
        8192,
        20,
        256,
        7,
    )


def test_every_proxy_has_to_report_its_own_section() -> None:
    world = World(spec=TWO).ready()
    told = acknowledgements(world.config())
    assert {"inference-proxy west", "inference-proxy east"} < told.keys()
    assert names.Role.INFERENCE_PROXY not in told
    assert world.runtime.value is not None
    silent = [one for one in world.runtime.value.members if one.endpoint != "west"]
    world.reporting(members=tuple(silent)).execute()
    assert world.condition("Reconciling")["message"] == (
        "no process has reported yet as inference-proxy west"
    )


def test_a_document_without_endpoints_does_not_speak_of_them() -> None:
    assert "endpoint" not in RuntimeConfig(cluster="docs").to_json()


def test_managed_inference_answers_until_every_endpoint_can() -> None:
    world = World().ready()
    world.edited(external(endpoint("west"), endpoint("east"))).execute()
    assert (MANAGED in world.children, removed(world)) == (True, [])
    assert world.plan().refusals[-1].message == (
        "Deployment docs-inference answers on until ready: docs-inference-east, docs-inference-west"
    )
    world.rolled_out().change(*EAST, ready=0)
    assert removed(world) == []
    world.rolled_out()
    assert removed(world) == ["docs-inference"]


def test_nothing_is_removed_before_the_watch_has_shown_our_writes() -> None:
    world = World().ready()
    world.edited(external(endpoint("west"))).execute()
    world.rolled_out().settled = False
    assert removed(world) == []
    assert {one.name for one in world.plan().refusals} == {"cache_is_settled"}


def test_endpoints_answer_until_our_own_ollama_can() -> None:
    world = World(spec=TWO).ready()
    world.edited(MINIMAL).execute()
    assert removed(world) == []
    world.rolled_out()
    assert removed(world) == ["docs-inference-east", "docs-inference-west"]


def test_an_endpoint_leaves_although_one_that_stays_is_dead() -> None:
    three = external(endpoint("west"), endpoint("east"), endpoint("north"))
    world = World(spec=three).ready()
    world.change(*WEST, ready=0)
    world.edited(external(endpoint("west"), endpoint("north")))
    assert removed(world) == ["docs-inference-east"]


@pytest.mark.parametrize(
    ("staying", "other_kind", "held"),
    [
        ({"a": True}, True, False),
        ({"a": False}, True, True),
        ({"a": True, "b": False}, True, True),
        ({"a": True, "b": False}, False, False),
        ({"a": False, "b": False}, False, True),
    ],
)
def test_the_predicate_knows_who_can_take_the_questions(
    staying: dict[str, bool], other_kind: bool, held: bool
) -> None:
    leaving = Child("Deployment", "docs-inference-x", "uid-1")
    refusal = answers_go_on(leaving, staying, other_kind=other_kind)
    assert (refusal is not None) is held
    assert refusal is None or refusal.reason is Reason.ROLLING_OUT


def test_one_dead_endpoint_of_two_leaves_the_object_ready() -> None:
    world = World(spec=TWO).ready().change(*WEST, ready=0)
    world.execute()
    assert world.condition("Ready")["status"] == "True"
    world.change(*EAST, ready=0).execute()
    assert world.condition("Ready")["reason"] == "WaitingForPods"


def test_a_former_proxy_that_drains_does_not_speak_for_its_endpoint() -> None:
    world = World(spec=TWO).ready().change(*EAST, ready=0)
    assert world.runtime.value is not None
    old = [
        one.model_copy(update={"ready": False, "reason": "draining", "name": "former"})
        for one in world.runtime.value.members
        if one.endpoint == "east"
    ]
    world.reporting(members=(*old, *world.runtime.value.members), model=ModelStatus(loaded=True))
    world.execute()
    assert "draining" not in str(world.status)


def test_both_kinds_at_once_are_refused_where_admission_let_them_pass() -> None:
    spec = external(endpoint("west"))
    spec["inference"]["managed"] = {}
    world = World(spec=spec).created()
    assert world.condition("Ready")["message"] == (
        "spec.inference must have at most one of managed and external"
    )
