"""Conditions: what a person, Argo and Flux read about an object at every moment."""

from __future__ import annotations

from dataclasses import replace

import pytest
from fakes.operator_world import MINIMAL, NOW_S, World

from chatbot_core.reasons import Reason
from chatbot_core.runtime_config import RuntimeStatus, SelfTestResult
from chatbot_core.v1alpha1 import ChatbotClusterStatus
from chatbot_operator import status
from chatbot_operator.model import Fact, Json, Pod, Refusal

READY_TYPES = [
    "Ready",
    "SpecValid",
    "StorageReady",
    "DatabaseReady",
    "RetrievalReady",
    "InferenceReady",
    "APIReady",
    "SelfTestPassed",
]


def said(world: World) -> dict[str, tuple[str, str]]:
    """Return status and reason of every condition after one more pass."""
    world.execute()
    return {c["type"]: (c["status"], c["reason"]) for c in world.status["conditions"]}


def test_a_fresh_object_reconciles_until_everything_answered_a_question() -> None:
    world = World()
    seen = []
    for go_on in (world.created, world.rolled_out, world.reporting):
        go_on()
        conditions = said(world)
        seen.append((conditions["Ready"], conditions.get("Reconciling")))
    assert seen == [
        (("False", "WaitingForVolume"), ("True", "WaitingForVolume")),
        (("False", "StatusUnknown"), ("True", "StatusUnknown")),
        (("True", "Available"), None),
    ]
    assert [c["type"] for c in world.status["conditions"]] == READY_TYPES


def test_the_status_fits_the_schema_and_names_the_address() -> None:
    world = World().ready()
    told = ChatbotClusterStatus.model_validate(world.status)
    assert told.endpoint == "http://docs-api.team-a.svc"
    assert told.observed_generation == 1
    assert told.retrieval is not None
    assert (told.retrieval.documents, told.retrieval.chunks) == (12000, 990)


@pytest.mark.parametrize(
    ("pod", "kind", "expected"),
    [
        (Pod("p", "inference", waiting_reason="ErrImagePull"), "Stalled", "ImageNotPullable"),
        (
            Pod("p", "inference", waiting_reason="CrashLoopBackOff", restarts=5),
            "Stalled",
            "PodCrashing",
        ),
        (
            Pod("p", "inference", waiting_reason="CrashLoopBackOff", restarts=1),
            "Reconciling",
            "WaitingForPods",
        ),
        (Pod("p", "inference", unschedulable="0/1 nodes"), "Stalled", "PodUnschedulable"),
        (
            Pod("p", "inference", unschedulable="unbound immediate PersistentVolumeClaims"),
            "Reconciling",
            "WaitingForVolume",
        ),
        (Pod("p", "inference"), "Reconciling", "WaitingForPods"),
    ],
)
def test_what_a_pod_says_decides_between_waiting_and_stalled(
    pod: Pod, kind: str, expected: str
) -> None:
    world = World().created().rolled_out().reporting()
    world.change("Deployment", "docs-inference", ready=0)
    world.pods = (pod,)
    conditions = said(world)
    assert conditions["InferenceReady"] == ("False", expected)
    assert conditions["Ready"] == ("False", expected)
    assert conditions[kind] == ("True", expected)
    assert len({"Stalled", "Reconciling"} & set(conditions)) == 1


def test_a_pod_finds_room_within_a_minute_or_stalls_its_object() -> None:
    world = World().ready().change("Deployment", "docs-inference", ready=0)
    pod = Pod("p", "inference", unschedulable="0/1 nodes", unschedulable_since_s=NOW_S)
    world.pods, world.now_s = (pod,), NOW_S + 20.0
    plan = world.execute()
    assert world.condition("Reconciling")["reason"] == "WaitingForPods"
    assert plan.requeue_after_s == 40.0
    world.now_s = NOW_S + 60.0
    assert said(world)["Stalled"] == ("True", "PodUnschedulable")
    world.now_s = NOW_S + 300.0
    assert world.plan().requeue_after_s is None


def test_the_message_of_a_broken_pod_names_the_pod_and_quotes_it() -> None:
    world = World().created().rolled_out().reporting()
    world.change("Deployment", "docs-api", ready=0)
    world.pods = (Pod("docs-api-x", "api", waiting_reason="ErrImagePull", message="no such tag"),)
    world.execute()
    assert world.condition("Stalled")["message"] == "pod docs-api-x: ErrImagePull: no such tag"


def test_a_lost_api_pod_leaves_ready_but_a_lost_shard_does_not() -> None:
    world = World().ready().change("Deployment", "docs-api", ready=1)
    conditions = said(world)
    assert conditions["Ready"] == ("True", "Available")
    assert conditions["Reconciling"] == ("True", "WaitingForPods")
    world.change("StatefulSet", "docs-shard-0", ready=0)
    conditions = said(world)
    assert conditions["Ready"] == ("False", "WaitingForPods")
    assert conditions["RetrievalReady"] == ("False", "WaitingForPods")


def test_a_scaling_step_never_clears_ready() -> None:
    world = World().ready().edited({**MINIMAL, "api": {"scaling": {"minReplicas": 4}}})
    for _ in range(3):
        conditions = said(world)
        assert conditions["Ready"] == ("True", "Available")
        assert conditions["Reconciling"] == ("True", "WaitingForPods")
    world.rolled_out()
    assert "Reconciling" not in said(world)


def test_a_roll_out_clears_ready_until_the_last_former_pod_is_gone() -> None:
    edit = {"inference": {"model": "smollm2:135m", "drainSeconds": 300}}
    world = World().ready().edited(edit)
    assert said(world)["Ready"] == ("False", "RollingOut")
    world.rolled_out().change("Deployment", "docs-api", current=3, updated=1)
    assert said(world)["APIReady"] == ("False", "RollingOut")
    world.rolled_out()
    assert said(world)["Ready"] == ("False", "WaitingForConfig")
    world.reporting()
    assert said(world)["Ready"] == ("True", "Available")


def test_an_edit_that_processes_have_not_read_yet_is_waited_for() -> None:
    world = World().ready().edited({**MINIMAL, "retrieval": {"maxPassages": 7}})
    assert said(world)["Reconciling"] == ("True", "WaitingForConfig")
    assert said(world)["Ready"] == ("False", "WaitingForConfig")
    world.reporting()
    assert said(world)["Ready"] == ("True", "Available")


def test_a_process_that_is_gone_is_not_waited_for() -> None:
    world = World().ready()
    runtime = world.runtime.value
    assert runtime is not None
    gone = runtime.members[0].model_copy(update={"config_hash": "v1:former", "age_s": 60.0})
    world.reporting(members=(*runtime.members, gone))
    assert said(world)["Ready"] == ("True", "Available")


def test_a_shard_that_never_reported_is_waited_for() -> None:
    world = World().created().rolled_out().reporting()
    runtime = world.runtime.value
    assert runtime is not None
    world.reporting(members=tuple(m for m in runtime.members if m.shard != 1))
    world.execute()
    assert world.condition("Ready")["message"] == "no process has reported yet as shard 1"


def test_an_operator_that_just_started_holds_what_it_cannot_know() -> None:
    world = World().ready()
    before = world.status
    world.runtime, world.status_written_at_s = Fact[RuntimeStatus].unknown(), None
    assert world.plan().status is None
    assert world.status == before


def test_after_an_edit_an_unknown_runtime_is_no_agreement() -> None:
    world = World().ready().edited({**MINIMAL, "retrieval": {"maxPassages": 7}})
    world.runtime = Fact[RuntimeStatus].unknown()
    assert said(world)["Ready"] == ("False", "StatusUnknown")


def answered(world: World, **result: object) -> World:
    wanted = world.config().live.self_test.wanted
    return world.reporting(self_test=SelfTestResult.model_validate({"wanted": wanted, **result}))


def test_the_self_test_latches_until_three_wrong_answers_in_a_row() -> None:
    world = World().ready()
    outcomes = []
    for failures in (1, 2, 3, 0):
        answered(world, passed=failures == 0, consecutive_failures=failures, message="no token")
        outcomes.append(said(world)["Ready"])
    assert outcomes == [
        ("True", "Available"),
        ("True", "Available"),
        ("False", "SelfTestFailed"),
        ("True", "Available"),
    ]


def test_a_failure_before_the_first_pass_is_not_latched() -> None:
    world = World().created().rolled_out()
    answered(world, consecutive_failures=1, message="busy")
    assert said(world)["SelfTestPassed"] == ("False", "WaitingForSelfTest")
    assert said(world)["Ready"] == ("False", "WaitingForSelfTest")


def test_a_pass_of_a_former_combination_does_not_count() -> None:
    world = World().created().rolled_out()
    answered(world, wanted="v1:former", passed=True)
    assert said(world)["SelfTestPassed"] == ("False", "WaitingForSelfTest")


def test_the_latch_belongs_to_the_combination_that_passed() -> None:
    world = World().ready()
    passed = world.status
    world.edited({"inference": {"model": "another:1b"}}).execute()
    world.rolled_out().status = passed
    answered(world, consecutive_failures=1, message="no token")
    assert said(world)["SelfTestPassed"] == ("False", "WaitingForSelfTest")


def test_without_a_self_test_ready_does_not_wait_for_one() -> None:
    world = World(spec={**MINIMAL, "selfTest": "Disabled"}).created().rolled_out()
    answered(world, wanted="")
    conditions = said(world)
    assert conditions["Ready"] == ("True", "Available")
    assert conditions["SelfTestPassed"] == ("Unknown", "SelfTestDisabled")


@pytest.mark.parametrize(
    ("database", "reason"),
    [("unavailable", "WaitingForDatabase"), ("unmigrated", "WaitingForMigration")],
)
def test_the_runtime_says_that_the_database_is_away(database: str, reason: str) -> None:
    world = World().ready().reporting(database=database)
    assert said(world)["DatabaseReady"] == ("False", reason)


def test_a_failed_migration_stalls_and_says_how_to_go_on() -> None:
    world = World().created().rolled_out()
    name = next(name for kind, name in world.children if kind == "Job")
    world.change("Job", name, succeeded=0, job_failed=True)
    world.pods = (Pod("m", "migrate", message="PostgreSQL 13 is too old"),)
    assert said(world)["Stalled"] == ("True", "MigrationFailed")
    assert world.condition("Stalled")["message"] == (
        f"Job {name}: PostgreSQL 13 is too old; delete it to try again"
    )


def test_a_write_that_the_server_refused_is_shown_where_it_belongs() -> None:
    world = World().ready()
    refused = Refusal("apply", Reason.WRITE_REFUSED, "Service docs-api: quota exceeded")
    world.refused["Service", "docs-api"] = refused
    conditions = said(world)
    assert conditions["APIReady"] == ("False", "WriteRefused")
    assert conditions["Stalled"] == ("True", "WriteRefused")
    assert world.plan().refusals == (refused,)


def test_a_download_says_how_far_it_is() -> None:
    world = World().created().rolled_out().reporting()
    world.change("Deployment", "docs-inference", ready=0)
    runtime = world.runtime.value
    assert runtime is not None
    model = runtime.model.model_copy(
        update={"loaded": False, "downloaded_bytes": 123456789, "total_bytes": 270000000}
    )
    world.reporting(model=model).execute()
    assert world.condition("InferenceReady")["reason"] == "WaitingForModel"
    assert world.condition("InferenceReady")["message"] == (
        "model smollm2:135m: 45 % are downloaded"
    )
    assert world.status["model"]["downloadedBytes"] == 120000000


def test_times_move_only_with_the_status_of_their_condition() -> None:
    world = World().ready()
    first = world.condition("Ready")["lastTransitionTime"]
    world.now_s += 3600
    world.change("StatefulSet", "docs-shard-0", ready=0).execute()
    assert world.condition("Ready")["lastTransitionTime"] != first
    assert world.condition("APIReady")["lastTransitionTime"] == first


def test_counts_alone_are_written_at_most_once_a_minute() -> None:
    world = World().ready()
    runtime = world.runtime.value
    assert runtime is not None
    world.reporting(retrieval=runtime.retrieval.model_copy(update={"documents": 99999}))
    world.now_s += 20
    assert (world.plan().status, world.plan().requeue_after_s) == (None, 40.0)
    world.now_s += 40
    written = world.plan().status
    assert written is not None
    assert written["retrieval"]["documents"] == 100000


def test_an_order_that_the_server_chose_is_no_change() -> None:
    world = World().ready()
    world.status = {**world.status, "conditions": world.status["conditions"][::-1]}
    assert world.plan().status is None


@pytest.mark.parametrize(
    ("count", "shown"), [(0, 0), (7, 7), (99, 99), (123, 120), (12345, 12000), (99999, 100000)]
)
def test_counts_have_two_significant_digits(count: int, shown: int) -> None:
    assert status.rounded(count) == shown


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({}, "spec.inference: Field required"),
        (
            {**MINIMAL, "retrieval": {"minPassages": 9, "maxPassages": 3}},
            "spec.retrieval.minPassages must not exceed maxPassages",
        ),
    ],
)
def test_a_spec_that_cannot_be_followed_stalls_and_touches_nothing(
    spec: Json, message: str
) -> None:
    world = World().ready().edited(spec)
    plan = world.plan()
    assert plan.steps == ()
    assert [one.message for one in plan.refusals] == [message]
    conditions = said(world)
    assert conditions["SpecValid"] == ("False", "SpecInvalid")
    assert conditions["Stalled"] == ("True", "SpecInvalid")
    assert conditions["APIReady"] == ("True", "Available")
    assert world.plan().status is None
    ChatbotClusterStatus.model_validate(world.status)


def test_a_long_message_is_cut_to_what_a_condition_may_hold() -> None:
    world = World().created().rolled_out().reporting()
    world.change("Deployment", "docs-api", ready=0)
    world.pods = (Pod("p", "api", waiting_reason="ErrImagePull", message="x" * 5000),)
    world.execute()
    assert len(world.condition("Ready")["message"]) == 1024


def test_a_ready_object_whose_replica_image_is_gone_is_stalled_and_ready() -> None:
    world = World().ready().change("Deployment", "docs-api", ready=1)
    world.pods = (replace(Pod("p", "api"), waiting_reason="ImagePullBackOff"),)
    conditions = said(world)
    assert conditions["Ready"] == ("True", "Available")
    assert conditions["Stalled"] == ("True", "ImageNotPullable")
    assert world.now_s == NOW_S
