"""A store leaves the spec only when somebody who knows says that it is empty."""

from __future__ import annotations

from typing import Any

import pytest
from fakes.operator_world import MINIMAL, World, golden_spec

from chatbot_core.runtime_config import RuntimeConfig, S3Store
from chatbot_operator.entries import listed_stores
from chatbot_operator.model import Apply, Delete
from chatbot_operator.safety import COUNTS_MAX_AGE_S

TWO = golden_spec("two-stores")
ONE = {**TWO, "documents": {"stores": TWO["documents"]["stores"][1:]}}


def leaving() -> World:
    """Return a world whose spec has just lost the store `main`."""
    world = World(spec=TWO).given_secret("our-bucket", "accessKeyId", "secretAccessKey").ready()
    return world.edited(ONE)


def refused(world: World) -> str:
    plan = world.plan()
    assert plan.steps == () or not plan.refusals
    return "".join(one.message for one in plan.refusals)


@pytest.mark.parametrize(
    ("told", "refusal"),
    [
        ({"stored": {"bucket": 30}}, ""),
        ({"stored": {"main": 0}}, ""),
        ({"stored": {"main": 1}}, "documents are still in main (1)"),
        ({"stored": None}, "whether main still holds documents is not known now"),
        ({"stored": {}, "database": "unavailable"}, "is not known now"),
    ],
)
def test_only_a_count_of_nothing_lets_a_store_leave(told: dict[str, Any], refusal: str) -> None:
    world = leaving().reporting(**told)
    assert refusal in refused(world)
    assert bool(refusal) is bool(world.plan().refusals)


def test_an_old_count_is_no_count() -> None:
    world = leaving().reporting(stored={})
    world.now_s += COUNTS_MAX_AGE_S + 1
    assert "is not known now" in refused(world)


def test_the_runtime_is_asked_on_while_the_spec_waits() -> None:
    world = leaving().reporting(stored={"main": 3})
    assert "docs-internal" in {one.name for one in world.plan().wanted_secrets}


def test_the_store_goes_and_its_claim_and_keys_stay() -> None:
    world = leaving().reporting(stored={})
    gone = [(step.kind, step.name) for step in world.plan().steps if isinstance(step, Delete)]
    assert gone == [("Deployment", "docs-store-main"), ("Service", "docs-store-main")]
    world.execute()
    assert ("PersistentVolumeClaim", "docs-store-main") in world.children


def test_a_gateway_that_runs_speaks_for_its_store_where_the_document_does_not() -> None:
    world = leaving().reporting(stored={"main": 3})
    world.change("ConfigMap", "docs-config", stores=())
    assert "documents are still in main (3)" in refused(world)


def test_documents_that_came_too_late_are_named() -> None:
    world = World().ready().reporting(stored={"former": 2})
    world.execute()
    assert world.condition("Stalled")["message"] == (
        "store former holds 2 documents and spec.documents.stores lacks it: list it again"
    )


def test_a_new_store_rolls_only_who_reads_documents() -> None:
    world = World().given_secret("our-bucket", "accessKeyId", "secretAccessKey").ready()
    before = dict(world.objects)
    world.edited({**MINIMAL, "documents": TWO["documents"]})
    rolled = {
        step.object["metadata"]["name"]
        for step in world.plan().steps
        if isinstance(step, Apply)
        and step.object["kind"] in {"Deployment", "StatefulSet"}
        and before[step.object["kind"], step.object["metadata"]["name"]] != step.object
    }
    assert rolled == {"docs-api", "docs-ingest"}


def test_each_of_several_stores_has_a_folder_of_its_own() -> None:
    world = World(spec=TWO).given_secret("our-bucket", "accessKeyId", "secretAccessKey").created()
    stores = world.config().boot.api.stores
    folders = [one.folder for one in stores if isinstance(one, S3Store)]
    assert folders == ["documents/main", "documents/bucket"]
    api = world.objects["Deployment", "docs-api"]["spec"]["template"]["spec"]
    (volume,) = (one for one in api["volumes"] if one["name"] == "secrets")
    mounted = {
        item["path"]: source["secret"]["name"]
        for source in volume["projected"]["sources"]
        for item in source["secret"]["items"]
    }
    for folder, secret in (("main", "docs-store-main"), ("bucket", "our-bucket")):
        assert mounted[f"documents/{folder}/accessKeyId"] == secret
        assert mounted[f"documents/{folder}/secretAccessKey"] == secret


def test_the_listed_stores_are_read_from_the_document() -> None:
    assert listed_stores(RuntimeConfig(cluster="docs").to_json()) == ()
    assert listed_stores("{") == ()
    world = World(spec=TWO).given_secret("our-bucket", "accessKeyId", "secretAccessKey").created()
    assert listed_stores(world.config().to_json()) == ("main", "bucket")
