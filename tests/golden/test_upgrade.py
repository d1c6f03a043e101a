"""Another operator restarts no pod: what a released one wrote is planned again without a change.

`tests/fixtures/v<version>/<case>.yaml` holds a spec and every object as that release applied it;
`tests/fixtures/record_release.py` wrote them.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from fakes.operator_world import SETTINGS, World

from chatbot_operator.model import Json

FIXTURES = Path(__file__).parents[1] / "fixtures"
RECORDED = sorted(FIXTURES.glob("v*/*.yaml"))
#: As another release of the operator is started: for a new object it would choose all of this.
NEWER = replace(
    SETTINGS,
    runtime_version="99.0.0",
    runtime_image="registry.example/chatbot-runtime:99.0.0",
    database_image="registry.example/postgres:99",
    store_image="registry.example/versitygw:99",
    ollama_image="registry.example/ollama:99",
)


def templates(world: World) -> dict[str, Json]:
    """Return every pod template that stands in an object, by kind and name."""
    return {
        f"{kind}/{name}": found["spec"]["template"]
        for (kind, name), found in world.objects.items()
        if "template" in found.get("spec", {})
    }


def upgraded(recorded: Path) -> World:
    """Return the world that a release left behind, as a newer operator finds it."""
    return World(settings=NEWER).as_stored(yaml.safe_load(recorded.read_text()))


@pytest.mark.parametrize("recorded", RECORDED, ids=lambda it: f"{it.parent.name}-{it.stem}")
def test_an_upgrade_of_the_operator_changes_no_pod_template(recorded: Path) -> None:
    world = upgraded(recorded)
    before = templates(world)
    assert len(before) >= 5
    # So many passes as a roll-out of every shard, one after the other, would take.
    for _ in range(12):
        world.execute()
        assert templates(world) == before
        world.rolled_out().reporting()
    assert world.condition("Ready")["status"] == "True"
    assert world.plan().steps == ()


def test_every_kind_of_database_and_document_store_was_recorded() -> None:
    assert {it.stem for it in RECORDED if it.parent.name == "v0.1.0"} == {
        "minimal",
        "everything-set",
        "s3-documents",
        "external-database",
    }
