"""What one pass decides about what holds data or opens it: claims, Secrets, the migration Job."""

from __future__ import annotations

from dataclasses import replace

import pytest
from fakes.operator_world import MINIMAL, NOW_S, UID, World, applied, without

from chatbot_core.reasons import Reason
from chatbot_operator.model import (
    Apply,
    Child,
    CreateSecret,
    Delete,
    Fact,
    Refusal,
    WantedSecret,
)


def test_a_claim_that_would_shrink_is_left_alone() -> None:
    world = World().ready()
    world.change("PersistentVolumeClaim", "docs-database", requested="20Gi")
    world.edited({**MINIMAL, "database": {"managed": {"size": "12Gi"}}})
    plan = world.plan()
    assert applied(plan) == []
    assert [one.name for one in plan.refusals] == ["volume_never_shrinks"]


def test_a_claim_grows_by_an_ordinary_apply() -> None:
    world = World().ready().edited({**MINIMAL, "database": {"managed": {"size": "12Gi"}}})
    assert applied(world.plan()) == [("PersistentVolumeClaim", "docs-database", "Changed")]


def test_a_migration_job_is_never_applied_again_and_a_former_one_goes() -> None:
    world = World().ready()
    job = next(child for child in world.children.values() if child.kind == "Job")
    world.children[job.key] = replace(job, applied="v1:of-another-operator")
    former = Child("Job", "docs-migrate-former", "former", owner_uid=UID, succeeded=1)
    world.children[former.key] = former
    assert world.plan().steps == (Delete(9, "Job", "docs-migrate-former", "former", "NotWanted"),)


@pytest.mark.parametrize("applied_hash", ["as it was", "v1:edited"])
def test_a_hand_s_edit_of_a_migration_job_is_healed(applied_hash: str) -> None:
    world = World().ready()
    job = next(child for child in world.children.values() if child.kind == "Job")
    edited = job.applied if applied_hash == "as it was" else applied_hash
    managed = without(job.managed, "f:metadata", "f:annotations")
    world.change(*job.key, applied=edited, managed=managed)
    assert [key[:2] for key in applied(world.plan())] == [job.key]


@pytest.mark.parametrize("secret", ["docs-internal", "docs-database", "docs-admin"])
def test_a_label_edit_of_a_generated_secret_is_healed(secret: str) -> None:
    world = World().ready()
    there = world.secrets[secret].value
    assert there is not None
    managed = without(there.child.managed, "f:metadata", "f:labels")
    edited = replace(there, child=replace(there.child, managed=managed))
    world.secrets[secret] = Fact(edited, NOW_S, known=True)
    assert applied(world.plan()) == [("Secret", secret, "Healed")]


def test_claims_and_secrets_of_no_use_any_more_are_never_deleted() -> None:
    world = World().ready()
    claim = Child("PersistentVolumeClaim", "docs-store-old", "old", owner_uid=UID)
    world.children[claim.key] = claim
    assert world.plan().steps == ()


def test_a_secret_is_created_once_and_its_data_never_written_again() -> None:
    world = World().ready()
    world.secrets["docs-database"] = replace(world.secrets["docs-database"])
    assert not [step for step in world.plan().steps if isinstance(step, CreateSecret)]
    for step in World().read_secrets().plan().steps:
        if isinstance(step, Apply):
            assert step.object["kind"] != "Secret" or set(step.object) == {
                "apiVersion",
                "kind",
                "metadata",
            }


def test_an_emptied_generated_secret_holds_its_pods_and_is_not_refilled() -> None:
    world = World().ready()
    secret = world.secrets["docs-internal"].value
    assert secret is not None
    emptied = replace(secret, keys=frozenset())
    world.secrets["docs-internal"] = Fact(emptied, NOW_S, known=True)
    plan = world.plan()
    assert plan.steps == ()
    assert plan.refusals == (
        Refusal(
            "secret_is_there",
            Reason.SECRET_KEY_MISSING,
            "Secret docs-internal lacks token, or they are empty: delete it to get a new one",
        ),
    )


def test_a_missing_secret_of_the_user_holds_exactly_the_pods_that_mount_it() -> None:
    spec = {**MINIMAL, "access": {"adminSecretRef": {"name": "ours"}}}
    world = World(spec=spec).read_secrets()
    names_applied = {name for kind, name, _ in applied(world.plan()) if kind == "Deployment"}
    assert names_applied == {"docs-inference", "docs-ingest", "docs-store-main"}
    world.given_secret("ours", "username", "password")
    names_applied = {name for kind, name, _ in applied(world.plan()) if kind == "Deployment"}
    assert "docs-api" in names_applied


def test_a_secret_that_nobody_has_read_holds_the_step_and_the_status() -> None:
    world = World().ready()
    del world.secrets["docs-admin"]
    world.edited({**MINIMAL, "api": {"scaling": {"minReplicas": 3}}})
    world.status = {**world.status, "observedGeneration": world.generation}
    plan = world.plan()
    assert plan.steps == ()
    assert plan.status is None
    assert [w for w in plan.wanted_secrets if w.awaited] == [
        WantedSecret("docs-admin", frozenset({"username", "password"}), awaited=True)
    ]


@pytest.mark.parametrize("policy", ["Retain", "Delete"])
def test_the_policy_decides_who_owns_claims_and_the_secrets_that_open_them(policy: str) -> None:
    world = World(spec={**MINIMAL, "deletionPolicy": policy}).ready()
    lasting = [c for c in world.children.values() if c.kind == "PersistentVolumeClaim"]
    lasting += [
        fact.value.child
        for name, fact in world.secrets.items()
        if fact.value and name != "docs-internal"
    ]
    assert len(lasting) == 5
    for child in lasting:
        assert child.owner_uid == ("" if policy == "Retain" else UID)
        assert child.retained_from == "team-a.docs"
    others = [c for c in world.children.values() if c.kind != "PersistentVolumeClaim"]
    assert {child.owner_uid for child in others} == {UID}


@pytest.mark.parametrize(("first", "then"), [("Retain", "Delete"), ("Delete", "Retain")])
def test_an_edit_of_the_policy_touches_metadata_of_claims_and_secrets_only(
    first: str, then: str
) -> None:
    world = World(spec={**MINIMAL, "deletionPolicy": first}).ready()
    world.edited({**MINIMAL, "deletionPolicy": then})
    assert sorted(applied(world.plan())) == [
        ("PersistentVolumeClaim", "docs-database", "Changed"),
        ("PersistentVolumeClaim", "docs-store-main", "Changed"),
        ("Secret", "docs-admin", "Changed"),
        ("Secret", "docs-database", "Changed"),
        ("Secret", "docs-store-main", "Changed"),
    ]
    assert len(world.plan().steps) == 5
