"""The benchmark of the operator judges by the audit log and by histograms: both are read right."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from operatorbench import phases
from operatorbench.audit import OPERATOR, AuditLog, Write, by_verb
from operatorbench.subject import Reading, lag_s


def entry(user: str, verb: str, resource: str, at: str, **about: str) -> dict[str, Any]:
    return {
        "user": {"username": user},
        "verb": verb,
        "objectRef": {"resource": resource, "namespace": "ns", **about},
        "requestReceivedTimestamp": f"2026-01-01T00:00:{at}.000000Z",
        "stageTimestamp": f"2026-01-01T00:00:{at}.250000Z",
    }


def test_the_operator_s_writes_are_told_from_those_of_others(tmp_path: Path) -> None:
    entries = [
        entry(OPERATOR, "patch", "configmaps", "01", name="chat-config"),
        entry(OPERATOR, "patch", "chatbotclusters", "02", name="chat", subresource="status"),
        entry(OPERATOR, "update", "leases", "03", name="chatbot-operator"),
        entry("admin", "patch", "chatbotclusters", "04", name="chat"),
    ]
    log = AuditLog(tmp_path / "audit.log")
    lines = [json.dumps(one) + "\n" for one in entries]
    (tmp_path / "audit-former.log").write_text(lines[0])
    log.path.write_text("".join(lines[1:]) + '{"user": {"userna')
    assert by_verb(log.of_operator()) == Counter(patch=2)
    (last,) = log.writes(since_s=1_767_225_604.0)
    assert last == Write(
        "admin",
        "patch",
        "chatbotclusters",
        "ns",
        "chat",
        "",
        began_s=1_767_225_604.0,
        ended_s=1_767_225_604.25,
    )


def write(resource: str, name: str, ended_s: float, subresource: str = "") -> Write:
    return Write("u", "patch", resource, "ns", name, subresource, ended_s - 0.1, ended_s)


def test_an_edit_lasts_until_the_first_write_of_its_own_child() -> None:
    writes = [
        write("configmaps", "one-config", 1.0),
        write("chatbotclusters", "one", 2.0),
        write("chatbotclusters", "two", 2.5),
        write("chatbotclusters", "one", 2.6, "status"),
        write("configmaps", "two-config", 2.75),
        write("configmaps", "one-config", 3.0),
        write("configmaps", "one-config", 9.0),
    ]
    assert phases._latencies_s(writes) == [0.25, 1.0]


def test_percentiles_are_of_the_nearest_rank() -> None:
    assert [phases._p(share, [4.0, 1.0, 3.0, 2.0]) for share in (0.5, 0.75, 0.99)] == [2, 3, 4]


def reading(**counts: float) -> Reading:
    name = "chatbot_operator_loop_lag_seconds_bucket"
    return Reading({(name, (("le", bound),)): count for bound, count in counts.items()}, 0.0)


@pytest.mark.parametrize(("share", "expected_s"), [(0.5, 0.01), (0.75, 0.015), (1.0, 0.02)])
def test_the_lag_is_interpolated_between_two_readings(share: float, expected_s: float) -> None:
    before = reading(**{"0.01": 5, "0.02": 5, "+Inf": 5})
    after = reading(**{"0.01": 7, "0.02": 9, "+Inf": 9})
    assert lag_s(before, after, share) == pytest.approx(expected_s)
