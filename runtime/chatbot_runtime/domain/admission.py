"""A bounded first-in-first-out queue before everything that can be overloaded.

Pure bookkeeping: the clock's reading is an argument, and a waiter is woken through a callback, so
that this file knows neither asyncio nor time. `services.slots` turns it into an async context.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from typing import Final

from chatbot_core.errors import Busy, Invalid

_SMOOTHING: Final = 0.2
_MIN_RETRY_S: Final = 1.0
_MAX_RETRY_S: Final = 60.0


class Place(Enum):
    """Where a ticket stands."""

    WAITING = "waiting"
    RUNNING = "running"
    GONE = "gone"


@dataclass(slots=True, eq=False)
class Ticket:
    """One piece of work; `on_admitted` is called once, when it gets its slot."""

    entered_s: float
    on_admitted: Callable[[], None]
    place: Place = Place.WAITING
    admitted_s: float = 0.0


@dataclass(slots=True)
class BoundedQueue:
    """`slots` run at once, `max_waiting` wait at most, none longer than `max_wait_s` seconds.

    `what` names the guarded thing in messages. The three bounds may change at any moment
    through `resize`: work that runs or waits already is never thrown out by it.
    """

    what: str
    slots: int
    max_waiting: int
    max_wait_s: float
    _running: int = 0
    _waiting: dict[Ticket, None] = field(default_factory=dict)
    _service_s: float = 0.0

    def __post_init__(self) -> None:
        """Refuse bounds that could never admit anything."""
        _check(self.slots, self.max_waiting, self.max_wait_s)

    @property
    def running(self) -> int:
        """Return how many hold a slot."""
        return self._running

    @property
    def waiting(self) -> int:
        """Return how many wait for one."""
        return len(self._waiting)

    def enter(self, now_s: float, on_admitted: Callable[[], None]) -> Ticket:
        """Take a slot, or the last place in the line.

        `on_admitted` may be called before this returns. Raises Busy at once where both are full.
        """
        ticket = Ticket(now_s, on_admitted)
        if self._running < self.slots and not self._waiting:
            self._admit(ticket, now_s)
        elif len(self._waiting) >= self.max_waiting:
            raise self.busy()
        else:
            self._waiting[ticket] = None
        return ticket

    def leave(self, ticket: Ticket, now_s: float) -> None:
        """Give back a slot or a place in the line; no effect the second time."""
        was, ticket.place = ticket.place, Place.GONE
        if was is Place.WAITING:
            self._waiting.pop(ticket, None)
        elif was is Place.RUNNING:
            self._running -= 1
            self._observe(now_s - ticket.admitted_s)
        self._fill(now_s)

    def resize(self, slots: int, max_waiting: int, max_wait_s: float, now_s: float) -> None:
        """Take new bounds; free slots are filled at once. Raises Invalid for impossible ones."""
        _check(slots, max_waiting, max_wait_s)
        self.slots, self.max_waiting, self.max_wait_s = slots, max_waiting, max_wait_s
        self._fill(now_s)

    def busy(self) -> Busy:
        """Return the refusal, with the time until a newcomer would probably be served."""
        return Busy(self.what, self.retry_after_s())

    def retry_after_s(self) -> float:
        """Return the expected wait of a newcomer in seconds: the line ahead over the slots' pace.

        Mean service time is an exponential moving average; the result lies within 1 to 60.
        """
        ahead = len(self._waiting) + max(0, self._running - self.slots) + 1
        return min(_MAX_RETRY_S, max(_MIN_RETRY_S, ahead * self._service_s / self.slots))

    def _fill(self, now_s: float) -> None:
        while self._waiting and self._running < self.slots:
            ticket = next(iter(self._waiting))
            del self._waiting[ticket]
            self._admit(ticket, now_s)

    def _admit(self, ticket: Ticket, now_s: float) -> None:
        self._running += 1
        ticket.place, ticket.admitted_s = Place.RUNNING, now_s
        ticket.on_admitted()

    def _observe(self, service_s: float) -> None:
        if self._service_s == 0.0:
            self._service_s = service_s
        else:
            self._service_s += _SMOOTHING * (service_s - self._service_s)


def _check(slots: int, max_waiting: int, max_wait_s: float) -> None:
    if slots < 1:
        raise Invalid("slots", slots, "1 or more")
    if max_waiting < 0:
        raise Invalid("maxWaiting", max_waiting, "0 or more")
    if max_wait_s < 0:
        raise Invalid("maxWaitSeconds", max_wait_s, "0 or more")
