"""What a run of pytest has reported so far, from its line of events. Pure."""

from __future__ import annotations

import json
from dataclasses import dataclass, field

from testlayers.layers import layer_of


@dataclass(frozen=True, slots=True)
class Outcome:
    """One line of the final table."""

    layer: str
    passed: int = 0
    failed: int = 0
    skipped: int = 0
    seconds: float = 0.0
    not_run: str = ""
    allowed: bool = False

    @property
    def green(self) -> bool:
        """Return whether this line lets the whole run pass."""
        if self.not_run:
            return self.allowed
        return self.failed == 0 and self.skipped == 0

    def line(self) -> str:
        """Return `layer passed failed skipped seconds`, or why it did not run."""
        if self.not_run:
            return f"{self.layer:<10} NOT RUN: {self.not_run}"
        counts = f"{self.passed:>7} {self.failed:>7} {self.skipped:>8}"
        return f"{self.layer:<10} {counts} {self.seconds:>8.1f}"


HEADER = f"{'layer':<10} {'passed':>7} {'failed':>7} {'skipped':>8} {'seconds':>8}"


@dataclass(slots=True)
class Tally:
    """Outcomes by test, fed with the events of `testlayers.plugin`; a test counts once it ended."""

    worst: dict[str, str] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    finished: set[str] = field(default_factory=set)
    running: str = ""

    def feed(self, line: str) -> str:
        """Take one event; return what to tell: a failed or skipped test, or what a test says."""
        event = json.loads(line)
        test: str = event["id"]
        match event["kind"]:
            case "start":
                self.running = test
            case "finish":
                self.running = ""
                self.finished.add(test)
            case "said":
                return f"  {event['line']}"
            case _:
                return self._phase(test, event["outcome"], event["seconds"])
        return ""

    def _phase(self, test: str, outcome: str, seconds: float) -> str:
        self.seconds[test] = self.seconds.get(test, 0.0) + seconds
        before = self.worst.get(test, "passed")
        now = max(before, outcome, key=("passed", "skipped", "failed").index)
        self.worst[test] = now
        return f"{now.upper()} {test}" if now not in {before, "passed"} else ""

    def ends(self, layer: str = "") -> list[str]:
        """Return how the finished tests of a layer, or of all, ended."""
        return [self.worst[test] for test in self.finished if not layer or layer_of(test) == layer]

    def outcome(self, layer: str) -> Outcome:
        """Return the table's line of one layer."""
        ends = self.ends(layer)
        spent = [value for test, value in self.seconds.items() if layer_of(test) == layer]
        counts = (ends.count("passed"), ends.count("failed"), ends.count("skipped"))
        return Outcome(layer, *counts, sum(spent))


def last_line(outcomes: list[Outcome]) -> str:
    """Return `N passed, N failed`; whatever keeps the run from passing counts as failed."""
    passed = sum(one.passed for one in outcomes)
    missing = sum(1 for one in outcomes if one.not_run and not one.allowed)
    failed = sum(one.failed + one.skipped for one in outcomes) + missing
    return f"{passed} passed, {failed} failed"
