"""How `hack/test` counts: from events, also of a run that never came to its end."""

import json

from testlayers.layers import FAST, SLOW, groups, layer_of
from testlayers.tally import Outcome, Tally, last_line


def event(kind: str, test: str, outcome: str = "passed", seconds: float = 0.0) -> str:
    return json.dumps({"kind": kind, "id": test, "outcome": outcome, "seconds": seconds})


def test_a_test_that_fails_in_any_phase_is_one_failure_and_is_told_at_once() -> None:
    tally = Tally()
    said = [
        tally.feed(event("start", "tests/unit/test_a.py::test_one")),
        tally.feed(event("phase", "tests/unit/test_a.py::test_one", "passed", 1.0)),
        tally.feed(event("phase", "tests/unit/test_a.py::test_one", "failed", 0.5)),
        tally.feed(event("finish", "tests/unit/test_a.py::test_one")),
        tally.feed(event("phase", "tests/arch/test_b.py::test_two", "passed", 2.0)),
        tally.feed(event("finish", "tests/arch/test_b.py::test_two")),
    ]
    assert said == ["", "", "FAILED tests/unit/test_a.py::test_one", "", "", ""]
    assert tally.outcome("unit") == Outcome("unit", 0, 1, 0, 1.5)
    assert tally.outcome("arch") == Outcome("arch", 1, 0, 0, 2.0)


def test_the_test_that_hung_is_known_and_does_not_count_as_passed() -> None:
    tally = Tally()
    tally.feed(event("start", "tests/runtime/test_a.py::test_one"))
    tally.feed(event("phase", "tests/runtime/test_a.py::test_one"))
    tally.feed(event("finish", "tests/runtime/test_a.py::test_one"))
    tally.feed(event("start", "tests/runtime/test_a.py::test_two"))
    tally.feed(event("phase", "tests/runtime/test_a.py::test_two"))
    assert tally.running == "tests/runtime/test_a.py::test_two"
    assert tally.ends() == ["passed"]


def test_what_a_test_says_is_told_also_when_it_passed() -> None:
    told = json.dumps({"kind": "said", "id": "tests/crash/test_a.py::test_one", "line": "3 of 3"})
    assert Tally().feed(told) == "  3 of 3"


def test_a_skipped_test_and_a_missing_layer_fail_the_run() -> None:
    outcomes = [
        Outcome("unit", passed=3),
        Outcome("golden", passed=1, skipped=1),
        Outcome("apiserver", not_run="no Go"),
        Outcome("e2e", not_run="not root", allowed=True),
    ]
    assert [one.green for one in outcomes] == [True, False, False, True]
    assert last_line(outcomes) == "4 passed, 2 failed"


def test_the_cheap_layers_share_a_process_and_the_others_follow_one_by_one() -> None:
    everything = frozenset(layer.name for layer in (*FAST, *SLOW))
    assert groups(everything) == [FAST, *((layer,) for layer in SLOW)]
    assert groups(frozenset({"runtime"})) == [(SLOW[1],)]
    assert layer_of("tests/property/test_x.py::test_y[1]") == "property"
