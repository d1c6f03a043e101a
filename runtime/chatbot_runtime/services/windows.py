"""Durations of the last 15 minutes in constant memory, summarised by nearest rank."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

WINDOW_S: Final = 900
_BUCKET_S: Final = 60
#: Samples kept a minute; beyond them a uniform sample stands for the rest.
_KEPT: Final = 512


@dataclass(frozen=True, slots=True)
class Summary:
    """What happened in the window; all but `count` in milliseconds."""

    count: int
    min: float
    max: float
    avg: float
    p50: float
    p95: float
    p99: float


@dataclass(slots=True)
class _Minute:
    number: int
    count: int = 0
    total: float = 0.0
    least: float = math.inf
    most: float = 0.0
    samples: list[float] = field(default_factory=list)

    def add(self, value: float, random: float) -> None:
        self.count += 1
        self.total += value
        self.least, self.most = min(self.least, value), max(self.most, value)
        if len(self.samples) < _KEPT:
            self.samples.append(value)
        elif (at := int(random * self.count)) < _KEPT:  # reservoir sampling, Vitter's algorithm R
            self.samples[at] = value


class Windows:
    """Named windows; `random` yields numbers in [0, 1)."""

    def __init__(self, random: Callable[[], float]) -> None:
        self._random = random
        self._minutes: dict[str, deque[_Minute]] = {}

    def record(self, name: str, value_ms: float, now_s: float) -> None:
        """Add a duration in milliseconds at `now_s` of a monotonic clock."""
        minutes = self._minutes.setdefault(name, deque(maxlen=WINDOW_S // _BUCKET_S))
        number = int(now_s // _BUCKET_S)
        if not minutes or minutes[-1].number != number:
            minutes.append(_Minute(number))
        minutes[-1].add(value_ms, self._random())

    def clear(self) -> None:
        """Forget everything."""
        self._minutes.clear()

    def summary(self, name: str, now_s: float) -> Summary | None:
        """Return the summary of a window, None where nothing happened in it."""
        oldest = int(now_s // _BUCKET_S) - WINDOW_S // _BUCKET_S
        minutes = [m for m in self._minutes.get(name, ()) if m.number > oldest]
        if not minutes:
            return None
        count = sum(minute.count for minute in minutes)
        weighted = sorted(
            (value, minute.count / len(minute.samples))
            for minute in minutes
            for value in minute.samples
        )
        p50, p95, p99 = (_nearest_rank(weighted, count, percent) for percent in (50, 95, 99))
        return Summary(
            count=count,
            min=round(min(minute.least for minute in minutes), 3),
            max=round(max(minute.most for minute in minutes), 3),
            avg=round(sum(minute.total for minute in minutes) / count, 3),
            p50=round(p50, 3),
            p95=round(p95, 3),
            p99=round(p99, 3),
        )

    def summaries(self, now_s: float) -> dict[str, Summary]:
        """Return every window in which something happened, by name."""
        found = {name: self.summary(name, now_s) for name in sorted(self._minutes)}
        return {name: summary for name, summary in found.items() if summary is not None}


def _nearest_rank(weighted: list[tuple[float, float]], count: int, percent: int) -> float:
    rank = math.ceil(count * percent / 100)
    passed = 0.0
    for value, weight in weighted:
        passed += weight
        if passed >= rank - 1e-9:
            return value
    return weighted[-1][0]
