"""A claim that grows: what it says about it, and who goes on meanwhile."""

from __future__ import annotations

from typing import Any

import pytest
from fakes.operator_world import World

from chatbot_operator import entries
from chatbot_operator.model import Apply, Json

CLAIM = ("PersistentVolumeClaim", "docs-store-main")


def kept(**status: Any) -> tuple[str, bool]:
    """Return what is kept of a claim's growth."""
    child = entries.child(
        {
            "kind": CLAIM[0],
            "metadata": {"name": CLAIM[1], "uid": "u", "namespace": "team-a"},
            "spec": {"resources": {"requests": {"storage": "20Gi"}}},
            "status": {"phase": "Bound", "capacity": {"storage": "10Gi"}, **status},
        }
    )
    return child.resize, child.resize_failed


def condition(kind: str, message: str = "", status: str = "True") -> list[Json]:
    return [{"type": kind, "status": status, "message": message}]


@pytest.mark.parametrize(
    ("status", "said"),
    [
        ({}, ("", False)),
        ({"conditions": condition("Resizing")}, ("Resizing", False)),
        ({"conditions": condition("Resizing", status="False")}, ("", False)),
        (
            {"conditions": condition("FileSystemResizePending", "waiting for a pod")},
            ("FileSystemResizePending waiting for a pod", False),
        ),
        (
            {"conditions": condition("ControllerResizeError", "disk is full")},
            ("ControllerResizeError disk is full", True),
        ),
        (
            {"allocatedResourceStatuses": {"storage": "ControllerResizeInProgress"}},
            ("ControllerResizeInProgress", False),
        ),
        (
            {"allocatedResourceStatuses": {"storage": "NodeResizeInfeasible"}},
            ("NodeResizeInfeasible", True),
        ),
        (
            {"allocatedResourceStatuses": {"storage": "ControllerResizeFailed"}},
            ("ControllerResizeFailed", True),
        ),
    ],
)
def test_what_a_claim_says_about_its_growth_is_kept(status: Json, said: tuple[str, bool]) -> None:
    assert kept(**status) == said


def grown() -> World:
    stores = [{"name": "main", "pvc": {"size": "20Gi"}}]
    world = World().ready()
    return world.edited({**world.spec, "documents": {"stores": stores}})


def test_growth_is_an_apply_of_the_claim_alone_after_everything_else() -> None:
    steps = [step for step in grown().plan().steps if isinstance(step, Apply)]
    assert [step.object["metadata"]["name"] for step in steps] == ["docs-store-main"]
    assert steps[0].rank == max(step.rank for step in grown().plan().steps)


def test_a_claim_that_has_grown_is_no_news() -> None:
    world = grown()
    world.execute()
    assert world.condition("Reconciling")["status"] == "True"
    world.rolled_out().execute()
    assert world.condition("Reconciling") == {}
    assert world.condition("Ready")["status"] == "True"
