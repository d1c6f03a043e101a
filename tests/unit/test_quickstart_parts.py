"""The pure parts of `hack/quickstart`: the plan, the state, the manifests, what counts as right."""

from pathlib import Path
from typing import Any

import pytest

from firstrun import manifests, questions, state
from firstrun.asking import Access
from firstrun.closing import text
from firstrun.kubernetes import current_conditions
from firstrun.plan import COLD_S, GIB, WARM_S, Machine, Plan
from firstrun.questions import Question
from firstrun.report import remaining
from firstrun.service import Answer, events

HERE = Machine("Linux x86_64, Python 3.11.2", 2, 8 * GIB, 40 * GIB)
QUESTION = Question("How long is the warranty?", ("five years",), "shipping.txt")


def plan(**changes: Any) -> Plan:
    given: dict[str, Any] = {
        "name": "chatbot",
        "machine": HERE,
        "provider": "node",
        "obstacle": "",
        "next_step": "",
        "built": False,
        "seconds": {},
        "embedded_only": False,
    }
    return Plan(**{**given, **changes})


def answer(text: str, *citations: dict[str, str]) -> Answer:
    return Answer(text, 3, citations, refused=False, meta={}, done={})


def test_the_plan_names_machine_provider_needs_and_both_stages() -> None:
    embedded_s = COLD_S["packages"] + COLD_S["embedded"]
    whole_s = max(COLD_S["cluster"], COLD_S["images"], embedded_s) + COLD_S["service"]
    assert plan().text().splitlines() == [
        "machine   Linux x86_64, Python 3.11.2, 2 cores",
        "          8 GiB memory, 40 GiB free disk",
        "provider  node, built while stage 1 is shown",
        "needs     about 3 GiB memory, 10 GiB disk",
        f"stage 1   the application alone, embedded: about {embedded_s:.0f} s",
        f"stage 2   the same on Kubernetes: about {whole_s:.0f} s in all",
    ]


def test_a_machine_without_a_cluster_is_told_why_and_still_shown_stage_1() -> None:
    here = plan(provider="", obstacle="needs root")
    assert not here.with_cluster
    assert "provider  none: needs root" in here.text()
    assert "stage 2" not in here.text()


def test_the_last_run_s_durations_replace_the_estimates() -> None:
    assert plan(built=True).expected_s("images") == WARM_S["images"]
    assert plan(seconds={"images": 77.0}).expected_s("images") == 77.0


@pytest.mark.parametrize(
    ("elapsed_s", "words"),
    [(3, "images: 3 s, about 7 s left"), (14, "images: 14 s, 4 s longer than expected")],
)
def test_a_running_stage_says_how_long_it_still_takes(elapsed_s: float, words: str) -> None:
    assert remaining("images", elapsed_s, 10) == words


def test_a_killed_run_is_continued_and_a_finished_one_starts_anew(tmp_path: Path) -> None:
    book = state.Book(tmp_path)
    book.note(embedded_answered=True)
    book.took("embedded", 11.04)
    assert state.Book(tmp_path).state.embedded_answered
    book.note(finished=True)
    assert state.Book(tmp_path).state == state.State(seconds={"embedded": 11.0})


def test_half_a_state_file_counts_as_none(tmp_path: Path) -> None:
    (tmp_path / "state.json").write_text('{"embedded_answered": tr')
    assert state.load(tmp_path) == state.State()


def test_built_images_replace_those_of_the_manifest_and_others_stay() -> None:
    pod = {
        "containers": [
            {
                "image": "example.com/chatbot-operator:dev",
                "env": [
                    {"name": "RUNTIME_IMAGE", "value": "example.com/runtime"},
                    {"name": "DATABASE_IMAGE", "value": "postgres:18"},
                    {"name": "WATCH_NAMESPACES", "value": ""},
                ],
            }
        ]
    }
    deployment = {"kind": "Deployment", "spec": {"template": {"spec": pod}}}
    account = {"kind": "ServiceAccount"}
    images = {"operator": "localhost/operator:1", "runtime": "localhost/runtime:1"}
    rendered = manifests.operator([account, deployment], images)
    container = rendered[1]["spec"]["template"]["spec"]["containers"][0]
    assert rendered[0] == account
    assert container == {
        "image": "localhost/operator:1",
        "env": [
            {"name": "RUNTIME_IMAGE", "value": "localhost/runtime:1"},
            {"name": "DATABASE_IMAGE", "value": "postgres:18"},
            {"name": "WATCH_NAMESPACES", "value": ""},
        ],
    }
    assert pod["containers"][0]["image"] == "example.com/chatbot-operator:dev"


@pytest.mark.parametrize(
    ("images", "managed"),
    [
        ({"ollama-smollm2": "localhost/o:1"}, {"source": "Image", "image": "localhost/o:1"}),
        ({}, {"source": "Pull"}),
    ],
)
def test_the_model_comes_out_of_the_built_image_or_is_pulled(
    images: dict[str, str], managed: dict[str, str]
) -> None:
    given = {"spec": {"inference": {"managed": {"source": "Image", "image": "localhost/o"}}}}
    assert manifests.cluster(given, images)["spec"]["inference"]["managed"] == managed


def test_a_right_answer_holds_the_words_and_cites_where_they_stand() -> None:
    passage = {"name": "shipping.txt", "text": "The warranty lasts five\nyears."}
    elsewhere = {"name": "handbook.md", "text": "For five years."}
    assert questions.right(answer("It is Five years.", passage), QUESTION)
    assert not questions.right(answer("It is two years.", passage), QUESTION)
    assert not questions.right(answer("It is five years.", elsewhere), QUESTION)
    assert not questions.right(answer("It is five years."), QUESTION)


def test_conditions_of_an_older_generation_say_nothing() -> None:
    ready = {"type": "Ready", "status": "True"}
    found = {
        "metadata": {"generation": 2},
        "status": {"observedGeneration": 1, "conditions": [ready]},
    }
    assert current_conditions(found) == {}
    found["status"]["observedGeneration"] = 2
    assert current_conditions(found) == {"Ready": ready}


def test_server_sent_events_are_told_apart() -> None:
    wire = ["event: meta\n", 'data: {"coverage": 1.0}\n', "\n", "id: 1\n", "event: token\n"]
    wire += ['data: {"text": "five"}\n', "\n", ": comment\n", "\n"]
    assert list(events(iter(wire))) == [("meta", {"coverage": 1.0}), ("token", {"text": "five"})]


def test_the_closing_words_hold_a_curl_that_a_shell_takes() -> None:
    quoted = Question("What's that?", (), "")
    words = text(Access("http://127.0.0.1:9", "admin", ""), quoted, "second")
    assert "hack/quickstart --name second --down" in words
    assert """-d '{"question": "What'"'"'s that?", "stream": true}'""" in words
