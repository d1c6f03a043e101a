"""Folder in, folder out: `<case>/{spec,observed}.yaml` -> the whole plan in `plan.yaml`.

A new case is a new folder. `pytest tests/golden --update-golden` writes what the code says now;
the difference is then read by a person.

`observed.yaml` tells how the world came to be: `steps` are verbs of `World`, run in order; the
plan of the world after the last one is compared. Where it has `show`, only the steps with one of
these names or reasons are written out, the others stand in one line each.
"""

from __future__ import annotations

from dataclasses import asdict, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from fakes.operator_world import World, without

from chatbot_core import names
from chatbot_core.reasons import Reason
from chatbot_operator.model import (
    Apply,
    Autoscaler,
    Child,
    Fact,
    Json,
    Plan,
    Pod,
    Refusal,
    Secret,
    Step,
)

HERE = Path(__file__).parent
CASES = sorted(folder.name for folder in HERE.iterdir() if (folder / "spec.yaml").exists())


def world_of(folder: Path) -> World:
    """Return the world that a case describes."""
    world = World(spec=yaml.safe_load((folder / "spec.yaml").read_text()))
    for verb in yaml.safe_load((folder / "observed.yaml").read_text()).get("steps", []):
        ((name, argument),) = verb.items() if isinstance(verb, dict) else ((verb, {}),)
        VERBS[name](world, argument)
    return world


def _change(world: World, argument: Json) -> None:
    argument = dict(argument)
    world.change(argument.pop("kind"), argument.pop("name"), **argument)


def _becomes(world: World, argument: Json) -> None:
    """Change a workload as its controller does, which has seen the last write."""
    generation = world.children[argument["kind"], argument["name"]].generation
    _change(world, {**argument, "observed_generation": generation})


def _add(world: World, argument: Json) -> None:
    child = Child(**argument)
    world.children[child.key] = child


def _operator(world: World, argument: Json) -> None:
    world.settings = replace(world.settings, **argument)


def _recreated(world: World, argument: Json) -> None:
    """Delete the object with its owned children, and create another of its name."""
    world.children = {k: c for k, c in world.children.items() if not c.owner_uid}
    held = {n: f for n, f in world.secrets.items() if f.value and not f.value.child.owner_uid}
    world.secrets = held
    world.uid, world.generation = argument["uid"], 1
    world.status, world.runtime = {"observedGeneration": -1}, Fact.unknown()
    world.read_secrets()


def _edit(world: World, argument: Json) -> None:
    world.edited({**world.spec, **argument})


def _endpoint_not_ready(world: World, argument: Json) -> None:
    """Let the proxy before an endpoint tell why it is not ready."""
    told = world.runtime.value
    assert told is not None
    silent = {"ready": False, "reason": argument["reason"]}
    members = [
        one.model_copy(update=silent) if one.endpoint == argument["name"] else one
        for one in told.members
    ]
    world.reporting(members=tuple(members))


def _foreign_secret(world: World, argument: Json) -> None:
    child = Child("Secret", argument["name"], "foreign")
    world.secrets[argument["name"]] = Fact(Secret(child, frozenset()), world.now_s, known=True)


def _growth_refused(world: World, argument: Json) -> None:
    key = "PersistentVolumeClaim", argument["name"]
    world.refused[key] = Refusal("write_refused", Reason.WRITE_REFUSED, argument["message"])


def _refuse(world: World, argument: Json) -> None:
    key = argument["kind"], argument["name"]
    world.children.pop(key)
    world.refused[key] = Refusal("first_contact", Reason.FOREIGN_OBJECT, argument["message"])


def _refuse_new(world: World, argument: Json) -> None:
    key = argument["kind"], argument["name"]
    reason = Reason(argument["reason"])
    world.refused[key] = Refusal(argument["name_of"], reason, argument["message"])


def _lose(world: World, argument: Json) -> None:
    """Let somebody take what is below a path of ours, as `managedFields` tells it."""
    child = world.children[argument["kind"], argument["name"]]
    world.change(*child.key, managed=without(child.managed, *argument["path"]))


VERBS = {
    "refuse-new": _refuse_new,
    "autoscaler": lambda world, it: setattr(world, "autoscalers", (Autoscaler(**it),)),
    "deleted": lambda world, _: world.deleted(),
    "wait": lambda world, it: setattr(world, "now_s", world.now_s + it),
    "lose-secret": lambda world, it: world.secrets.update({it: Fact(None, world.now_s, True)}),
    "refuse": _refuse,
    "runtime-unknown": lambda world, _: setattr(world, "runtime", Fact.unknown()),
    "endpoint-not-ready": _endpoint_not_ready,
    "secret": lambda world, it: world.given_secret(it["name"], *it["keys"]),
    "foreign-secret": _foreign_secret,
    "read-secrets": lambda world, _: world.read_secrets(),
    "created": lambda world, _: world.created(),
    "rolled-out": lambda world, _: world.rolled_out(),
    "reporting": lambda world, it: world.reporting(**it),
    "ready": lambda world, _: world.ready(),
    "execute": lambda world, _: world.execute(),
    "change": _change,
    "lose": _lose,
    "becomes": _becomes,
    "growth-refused": _growth_refused,
    "add": _add,
    "edit": _edit,
    "operator": _operator,
    "recreated": _recreated,
    "pod": lambda world, it: setattr(world, "pods", (*world.pods, Pod(**it))),
    "set": lambda world, it: [setattr(world, name, value) for name, value in it.items()],
}


class _Dumper(yaml.CSafeDumper):
    """Writes scripts and documents as they are, line by line."""


def _text(dumper: yaml.CSafeDumper, value: str) -> yaml.ScalarNode:
    style = "|" if "\n" in value else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=style)


_Dumper.add_representer(str, _text)


@lru_cache
def plan_of(case: str) -> Plan:
    return world_of(HERE / case).plan()


def readable(plan: Plan, show: list[str] | None) -> Json:
    """Return a plan as plain YAML values, kinds of steps by name."""
    return {
        "steps": [_step(step, show) for step in plan.steps],
        "refusals": [
            {"name": one.name, "reason": one.reason.value, "message": one.message}
            for one in plan.refusals
        ],
        "status": plan.status,
        "requeue_after_s": plan.requeue_after_s,
        "wanted_secrets": [
            {"name": one.name, "keys": sorted(one.keys), "awaited": one.awaited}
            for one in plan.wanted_secrets
        ],
    }


def _step(step: Step, show: list[str] | None) -> Json | str:
    values = asdict(step)
    name = step.object["metadata"]["name"] if isinstance(step, Apply) else step.name
    kind = values.get("kind") or values.get("object", {}).get("kind", names.KIND)
    if show is not None and name not in show and step.reason not in show:
        return f"{type(step).__name__} {kind} {name} {step.reason}"
    if isinstance(step, Apply) and not step.heal:
        del values["heal"]
    return {type(step).__name__: _plain(values)}


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(below) for key, below in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(below) for below in value]
    return int(value) if isinstance(value, int) and not isinstance(value, bool) else value


@pytest.mark.parametrize("case", CASES)
def test_the_plan_of_a_case_is_the_one_written_down(
    case: str, request: pytest.FixtureRequest
) -> None:
    folder = HERE / case
    show = yaml.safe_load((folder / "observed.yaml").read_text()).get("show")
    result = yaml.dump(
        readable(plan_of(case), show),
        Dumper=_Dumper,
        sort_keys=False,
        width=100,
        allow_unicode=True,
    )
    if request.config.getoption("--update-golden", default=False):
        (folder / "plan.yaml").write_text(result)
    assert result == (folder / "plan.yaml").read_text()


def every_object() -> list[tuple[str, Json]]:
    """Return every object that some golden plan applies, with its case."""
    return [
        (case, step.object)
        for case in CASES
        for step in plan_of(case).steps
        if isinstance(step, Apply)
    ]


def test_no_claim_is_mounted_by_two_pods_and_no_set_has_claim_templates() -> None:
    for case in CASES:
        users: dict[str, list[str]] = {}
        for step in plan_of(case).steps:
            if not isinstance(step, Apply) or "template" not in step.object.get("spec", {}):
                continue
            spec = step.object["spec"]
            assert "volumeClaimTemplates" not in spec
            for volume in spec["template"]["spec"]["volumes"]:
                if "persistentVolumeClaim" in volume:
                    claim = volume["persistentVolumeClaim"]["claimName"]
                    users.setdefault(claim, []).append(step.object["metadata"]["name"])
        assert all(len(who) == 1 for who in users.values()), (case, users)


def test_only_sets_of_one_mount_claims() -> None:
    for case in CASES:
        plan = plan_of(case)
        replicas = {
            step.name: step.replicas for step in plan.steps if type(step).__name__ == "Scale"
        }
        for step in plan.steps:
            if isinstance(step, Apply) and "persistentVolumeClaim" in str(step.object):
                assert replicas.get(step.object["metadata"]["name"], 1) == 1


def test_no_object_of_the_main_manager_states_replicas() -> None:
    assert all("replicas" not in thing.get("spec", {}) for _, thing in every_object())


@pytest.mark.parametrize("case", CASES)
def test_no_case_is_unready_without_saying_whether_time_cures_it(case: str) -> None:
    status = plan_of(case).status
    if status is None:
        return
    stated = {one["type"]: one["status"] for one in status["conditions"]}
    course = [stated[kind] for kind in ("Reconciling", "Stalled") if kind in stated]
    assert course == ["True"] or (course == [] and stated["Ready"] == "True")


def test_every_case_says_what_it_is_about() -> None:
    assert len(CASES) >= 12
    for case in CASES:
        assert (HERE / case / "observed.yaml").read_text().startswith("# "), case
