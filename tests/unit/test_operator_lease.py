"""The rules of the lease, one by one; the schedules of many processes are property tests."""

from __future__ import annotations

from dataclasses import replace

import pytest

from chatbot_operator import lease
from chatbot_operator.kinds import Object, Ref
from chatbot_operator.lease import Candidate, Decision, Record, decide

REF = Ref("Lease", "chatbot-system", "chatbot-operator")
MINE = Record("u", "me", "12:00")
THEIRS = Record("u", "other", "12:00")
WALL_S = 1_790_000_000.0

NEW = Candidate("me")
LEADER = NEW.renewed(MINE, 100.0, 100.5)


@pytest.mark.parametrize(
    ("candidate", "now_s", "expected"),
    [
        (NEW.saw(THEIRS, 100.0), 114.9, Decision.WAIT),
        (NEW.saw(THEIRS, 100.0), 115.0, Decision.ACQUIRE),
        (NEW.saw(replace(THEIRS, holder=""), 100.0), 100.0, Decision.ACQUIRE),
        (NEW.saw(replace(THEIRS, holder=lease.NOBODY), 100.0), 114.9, Decision.WAIT),
        (NEW.saw(None, 100.0), 103.9, Decision.WAIT),
        (NEW.saw(None, 100.0), 104.0, Decision.RESTORE),
        (NEW, 100.0, Decision.WAIT),
        (LEADER, 109.9, Decision.RENEW),
        (LEADER, 110.0, Decision.STEP_DOWN),
        (LEADER.saw(None, 101.0), 101.0, Decision.RENEW),
        (LEADER.saw(THEIRS, 101.0), 101.0, Decision.STEP_DOWN),
        (LEADER.stepped_down(), 130.0, Decision.ACQUIRE),
        (LEADER.stepped_down().saw(THEIRS, 130.0), 130.0, Decision.WAIT),
    ],
)
def test_what_a_process_does(candidate: Candidate, now_s: float, expected: Decision) -> None:
    assert decide(candidate, now_s) is expected


def test_only_a_changed_record_starts_the_wait_anew() -> None:
    seen = NEW.saw(THEIRS, 100.0)
    assert seen.saw(THEIRS, 107.0) is seen
    assert decide(seen.saw(replace(THEIRS, renewed_at="12:01"), 107.0), 121.0) is Decision.WAIT
    assert decide(seen.saw(replace(THEIRS, uid="another"), 107.0), 121.0) is Decision.WAIT


def test_a_write_must_be_over_before_the_lease_is() -> None:
    assert NEW.write_left_s(100.0) == 0.0
    assert LEADER.write_left_s(101.0) == 13.0
    assert LEADER.write_left_s(109.9) == pytest.approx(4.1)
    assert LEADER.write_left_s(110.0) == 0.0
    assert LEADER.stepped_down().write_left_s(101.0) == 0.0


def live(**spec: object) -> Object:
    return {**lease.missing(REF), "metadata": {"uid": "u", "resourceVersion": "7"}, "spec": spec}


def test_a_lease_is_written_and_read_back() -> None:
    held = lease.held(live(holderIdentity="other", leaseTransitions=3), "me", WALL_S, "")
    assert held["metadata"] == {"uid": "u", "resourceVersion": "7"}
    assert held["spec"] == {
        "holderIdentity": "me",
        "leaseDurationSeconds": 15,
        "acquireTime": "2026-09-21T14:13:20.000000Z",
        "renewTime": "2026-09-21T14:13:20.000000Z",
        "leaseTransitions": 4,
    }
    assert lease.record_of(held) == Record("u", "me", "2026-09-21T14:13:20.000000Z")
    again = lease.held(held, "me", WALL_S + 2, "")
    assert again["spec"] == {**held["spec"], "renewTime": "2026-09-21T14:13:22.000000Z"}
    assert lease.record_of(lease.released(again)) == replace(lease.record_of(again), holder="")


@pytest.mark.parametrize("step_s", [-300.0, 0.0])
def test_a_renewal_is_a_change_whatever_the_wall_clock_does(step_s: float) -> None:
    first = lease.held(live(), "me", WALL_S, "")
    second = lease.held(first, "me", WALL_S + step_s, "")
    assert second["spec"]["renewTime"] == "2026-09-21T14:13:20.000001Z"
    made_anew = lease.held(lease.missing(REF, ""), "me", WALL_S + step_s, "9999-01-01T00:00:00Z")
    assert made_anew["spec"]["renewTime"] == "9999-01-01T00:00:00.000001Z"


def test_the_last_microsecond_of_all_time_is_no_trap() -> None:
    held = lease.held(live(renewTime="9999-12-31T23:59:59.999999Z"), "me", WALL_S, "")
    assert held["spec"]["renewTime"] == "2026-09-21T14:13:20.000000Z"
