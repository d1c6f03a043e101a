"""The rights in `deploy/operator.yaml` are the verbs that the operator uses, and no others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from chatbot_core import names
from chatbot_operator import plan
from chatbot_operator.kinds import AUTOSCALERS, WATCHED, resource
from chatbot_operator.main import arguments

DEPLOY = Path(__file__).resolve().parents[2] / "deploy" / "operator.yaml"

Right = tuple[str, str, str]


DOCUMENTS = [one for one in yaml.safe_load_all(DEPLOY.read_text()) if one]


def the(kind: str) -> Any:
    (one,) = [one for one in DOCUMENTS if one["kind"] == kind]
    return one


def granted(kind: str = "ClusterRole") -> list[Right]:
    """Return (group, resource, verb) of every rule."""
    return [
        (group, what, verb)
        for rule in the(kind)["rules"]
        for group in rule["apiGroups"]
        for what in rule["resources"]
        for verb in rule["verbs"]
    ]


def rights(kind: str, *verbs: str) -> set[Right]:
    where = resource(kind)
    group = where.api_version.rpartition("/")[0]
    return {(group, where.plural, verb) for verb in verbs}


def used() -> set[Right]:
    # `patch` sets and releases the finalizer.
    found = rights(names.KIND, "get", "list", "watch", "patch")
    found |= {(names.GROUP, f"{names.PLURAL}/status", "patch")}
    found |= rights("Event", "create")
    # Read by name at a poll, created by POST, its metadata applied.
    found |= rights("Secret", "get", "create", "patch")
    for kind in AUTOSCALERS:
        found |= rights(kind, "list", "watch")
    for kind in WATCHED:
        found |= rights(kind, "list", "watch")
        if kind != "Pod":
            # First contact, an apply that creates, an apply, the PUT of a heal.
            found |= rights(kind, "get", "create", "patch", "update")
        if kind in plan.PRUNED:
            found |= rights(kind, "delete")
    return found


def test_every_right_is_used_and_every_use_has_its_right() -> None:
    assert sorted(granted()) == sorted(used())


def test_nothing_may_list_or_watch_secrets_or_use_a_wildcard() -> None:
    assert not [right for right in granted() if "*" in right]
    assert {verb for _, what, verb in granted() if what == "secrets"} == {"get", "create", "patch"}


def test_the_replicas_may_use_exactly_the_lease_that_they_are_told() -> None:
    (container,) = the("Deployment")["spec"]["template"]["spec"]["containers"]
    told = {one["name"]: one["value"] for one in container["env"]}
    ref = arguments([], told).lease
    assert ref is not None
    for kind in ("Lease", "Role", "RoleBinding", "Deployment"):
        assert the(kind)["metadata"]["namespace"] == ref.namespace
    assert the("Lease")["metadata"]["name"] == ref.name
    assert sorted(granted("Role")) == sorted(rights("Lease", "get", "update", "create"))
    named = {
        verb: rule.get("resourceNames") for rule in the("Role")["rules"] for verb in rule["verbs"]
    }
    assert named == {"get": [ref.name], "update": [ref.name], "create": None}
