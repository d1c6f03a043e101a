"""A pytest plug-in: one JSON line an event into the file that `CHATBOT_TEST_EVENTS` names.

The launcher counts from these lines, so that a run which hangs or dies is counted too.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

EVENTS = Path(os.environ["CHATBOT_TEST_EVENTS"])


def _write(event: dict[str, Any]) -> None:
    with EVENTS.open("a", encoding="utf-8") as file:
        file.write(json.dumps(event) + "\n")


def pytest_runtest_logstart(nodeid: str) -> None:
    """Say which test runs now."""
    _write({"kind": "start", "id": nodeid})


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Say how a phase of a test ended: setup, call or teardown."""
    _write(
        {
            "kind": "phase",
            "id": report.nodeid,
            "seconds": report.duration,
            "outcome": report.outcome,
        }
    )
    if report.when == "call":
        for name, line in report.user_properties:
            if name == "said":
                _write({"kind": "said", "id": report.nodeid, "line": line})


def pytest_runtest_logfinish(nodeid: str) -> None:
    """Say that a test came to its end."""
    _write({"kind": "finish", "id": nodeid})


def pytest_collectreport(report: pytest.CollectReport) -> None:
    """Count a file that cannot be collected as a failed test."""
    if report.outcome != "passed":
        _write({"kind": "phase", "id": report.nodeid, "seconds": 0.0, "outcome": report.outcome})
        _write({"kind": "finish", "id": report.nodeid})
