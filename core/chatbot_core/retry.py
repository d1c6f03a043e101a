"""Deadlines and retries, the only ones in the product: every client's own retries are off.

Backoff is exponential with full jitter (M. Brooker, "Exponential Backoff And Jitter", AWS
Architecture Blog, 2015). Clock, sleep and randomness are arguments.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

from chatbot_core.errors import Unavailable

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Deadline:
    """An absolute moment on the caller's monotonic clock, in seconds, passed down unchanged."""

    at_s: float

    @classmethod
    def after(cls, now_s: float, wait_s: float) -> Deadline:
        """Return the deadline `wait_s` seconds from now."""
        return cls(now_s + wait_s)

    def left_s(self, now_s: float) -> float:
        """Return the seconds left, never below zero."""
        return max(0.0, self.at_s - now_s)

    def left_ms(self, now_s: float) -> int:
        """Return the whole milliseconds left: what goes on the wire, since clocks differ."""
        return int(self.left_s(now_s) * 1000)

    def passed(self, now_s: float) -> bool:
        """Say whether no time is left."""
        return now_s >= self.at_s


@dataclass(frozen=True, slots=True)
class Backoff:
    """Waits between tries: full jitter below `base_s * 2**tries`, capped at `max_s`."""

    base_s: float = 0.1
    max_s: float = 10.0

    def wait_s(self, tries: int, random: float) -> float:
        """Return the wait in seconds after `tries` failures; `random` lies in [0, 1)."""
        ceiling: float = min(self.max_s, self.base_s * 2.0 ** min(tries, 30))
        return ceiling * (0.5 + random / 2)


@dataclass(frozen=True, slots=True)
class Clockwork:
    """The impure arguments of `retry`: a monotonic clock, a sleep and a source of [0, 1)."""

    now_s: Callable[[], float]
    sleep: Callable[[float], Awaitable[None]]
    random: Callable[[], float]


async def retry(
    attempt: Callable[[], Awaitable[T]],
    deadline: Deadline,
    clockwork: Clockwork,
    backoff: Backoff = Backoff(),
) -> T:
    """Return what `attempt` returns, trying again on Unavailable until the deadline.

    A longer wait that the world named is obeyed. Raises the last Unavailable.
    """
    tries = 0
    while True:
        try:
            return await attempt()
        except Unavailable as error:
            wait_s = max(backoff.wait_s(tries, clockwork.random()), error.named_wait_s)
            if clockwork.now_s() + wait_s >= deadline.at_s:
                raise
            await clockwork.sleep(wait_s)
            tries += 1
