"""The rights in `deploy/operator.yaml` are the verbs that the operator uses, and no others."""

from __future__ import annotations

from pathlib import Path

import yaml

from chatbot_core import names
from chatbot_operator import plan
from chatbot_operator.kinds import WATCHED, resource

DEPLOY = Path(__file__).resolve().parents[2] / "deploy" / "operator.yaml"

Right = tuple[str, str, str]


def granted() -> list[Right]:
    """Return (group, resource, verb) of every rule."""
    documents = [one for one in yaml.safe_load_all(DEPLOY.read_text()) if one]
    (role,) = [one for one in documents if one["kind"] == "ClusterRole"]
    return [
        (group, what, verb)
        for rule in role["rules"]
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
