"""Which feeders are alive: when each heard from the API server, and whether kopf still tells."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from chatbot_operator.kinds import Ref


@dataclass(slots=True)
class Heartbeats:
    """When each feeder last heard from the API server, in seconds on one monotonic clock.

    News is a list or an event; an answer may also be a refusal: the feeder lives, and a restart
    would not help it.
    """

    now_s: Callable[[], float]
    _news_s: dict[str, float] = field(default_factory=dict)
    _answer_s: dict[str, float] = field(default_factory=dict)

    def beat(self, scope: str) -> None:
        """Note that the scope's list or watch was heard."""
        self._news_s[scope] = self._answer_s[scope] = self.now_s()

    def answered(self, scope: str) -> None:
        """Note that the scope's list was refused."""
        self._answer_s[scope] = self.now_s()

    def oldest_s(self) -> float:
        """Return the age of the oldest scope's news."""
        return max((self.now_s() - at_s for at_s in self._news_s.values()), default=0.0)

    def silent_s(self) -> tuple[float, float]:
        """Return for how long the most and the least silent scope had no answer."""
        ages = [self.now_s() - at_s for at_s in self._answer_s.values()] or [0.0]
        return max(ages), min(ages)


@dataclass(slots=True)
class Echo:
    """What a watch that is not ours (kopf's) has told, beside what our own lists show.

    `dead` is set when it tells no more, or may not: then it has to be started anew.
    """

    dead: asyncio.Event = field(default_factory=asyncio.Event)
    _told: dict[Ref, int] = field(default_factory=dict)
    _untold: dict[str, dict[Ref, int]] = field(default_factory=dict)
    _failed: set[str] = field(default_factory=set)

    def begin(self) -> None:
        """Note that the watch starts: it will tell everything once."""
        self.dead.clear()
        self._told.clear()
        self._untold.clear()

    def told(self, ref: Ref, version: int) -> None:
        """Note one event of the watch."""
        self._told[ref] = max(version, self._told.get(ref, 0))

    def gone(self, ref: Ref) -> None:
        """Note that the watch has told the end of an object."""
        self._told.pop(ref, None)

    def failed(self, scope: str) -> None:
        """Note that a list failed: the watch, if it was refused too, has ended."""
        self._failed.add(scope)

    def listed(self, scope: str, versions: Mapping[Ref, int]) -> bool:
        """Take what a list showed; return whether the watch has told all of it.

        What it has not told by the next list makes it dead.
        """
        overdue = {ref: at for ref, at in self._untold.get(scope, {}).items() if ref in versions}
        if scope in self._failed or self._behind(overdue):
            self._failed.discard(scope)
            self.dead.set()
        self._untold[scope] = self._behind(versions)
        return not self._untold[scope]

    def _behind(self, versions: Mapping[Ref, int]) -> dict[Ref, int]:
        return {ref: at for ref, at in versions.items() if self._told.get(ref, 0) < at}
