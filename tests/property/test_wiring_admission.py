"""The bounded queue under every interleaving of arrivals, departures and edits of its bounds."""

from __future__ import annotations

from collections import deque

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from chatbot_core.errors import Busy, Invalid
from chatbot_runtime.domain.admission import BoundedQueue, Place, Ticket


class Admission(RuleBasedStateMachine):
    """A queue beside a model of it: a line and a set, in plain Python."""

    def __init__(self) -> None:
        super().__init__()
        self.now_s = 0.0
        self.queue = BoundedQueue("ollama", slots=2, max_waiting=3, max_wait_s=30)
        self.line: deque[Ticket] = deque()
        self.running: list[Ticket] = []
        self.admitted: list[int] = []
        self.entered = 0

    @rule(wait_s=st.floats(0, 10))
    def time_passes(self, wait_s: float) -> None:
        self.now_s += wait_s

    @rule()
    def one_enters(self) -> None:
        number = self.entered = self.entered + 1
        no_slot = bool(self.line) or len(self.running) >= self.queue.slots
        if no_slot and len(self.line) >= self.queue.max_waiting:
            with pytest.raises(Busy, match="ollama is busy") as refused:
                self.queue.enter(self.now_s, lambda: self.admitted.append(number))
            assert 1 <= refused.value.retry_after_s <= 60
            return
        ticket = self.queue.enter(self.now_s, lambda: self.admitted.append(number))
        (self.running if ticket.place is Place.RUNNING else self.line).append(ticket)

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def one_is_done(self, data: st.DataObject) -> None:
        ticket = data.draw(st.sampled_from(self.running))
        self.queue.leave(ticket, self.now_s)
        self.running.remove(ticket)
        self.admit_from_line()

    @precondition(lambda self: self.line)
    @rule(data=st.data())
    def one_stops_waiting(self, data: st.DataObject) -> None:
        ticket = data.draw(st.sampled_from(list(self.line)))
        self.queue.leave(ticket, self.now_s)
        self.line.remove(ticket)

    @rule(slots=st.integers(1, 4), waiting=st.integers(0, 4))
    def bounds_are_edited(self, slots: int, waiting: int) -> None:
        self.queue.resize(slots, waiting, 30, self.now_s)
        self.admit_from_line()

    def admit_from_line(self) -> None:
        while self.line and len(self.running) < self.queue.slots:
            self.running.append(self.line.popleft())

    @invariant()
    def queue_and_model_agree(self) -> None:
        assert self.queue.running == len(self.running)
        assert self.queue.waiting == len(self.line)
        assert {ticket.place for ticket in self.running} <= {Place.RUNNING}
        assert {ticket.place for ticket in self.line} <= {Place.WAITING}

    @invariant()
    def nobody_waits_beside_a_free_slot(self) -> None:
        assert not self.line or len(self.running) >= self.queue.slots

    @invariant()
    def first_in_is_first_admitted(self) -> None:
        assert self.admitted == sorted(self.admitted)


Admission.TestCase.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
TestAdmission = Admission.TestCase


@given(service_s=st.lists(st.floats(0.01, 20), min_size=1, max_size=20), slots=st.integers(1, 4))
def test_retry_after_lies_between_the_extremes_of_the_service_times(
    service_s: list[float], slots: int
) -> None:
    queue = BoundedQueue("ollama", slots, max_waiting=0, max_wait_s=1)
    for seconds in service_s:
        queue.leave(queue.enter(0.0, lambda: None), seconds)
    expected = queue.retry_after_s()
    assert max(1.0, min(service_s) / slots) - 1e-9 <= expected
    assert expected <= max(1.0, max(service_s) / slots) + 1e-9


def test_leaving_twice_frees_one_slot_only() -> None:
    queue = BoundedQueue("ollama", 2, 0, 1)
    first, _second = (queue.enter(0.0, lambda: None) for _ in range(2))
    queue.leave(first, 1.0)
    queue.leave(first, 1.0)
    assert queue.running == 1


@pytest.mark.parametrize("bounds", [(0, 1, 1), (1, -1, 1), (1, 1, -1)])
def test_bounds_that_admit_nobody_are_refused(bounds: tuple[int, int, float]) -> None:
    with pytest.raises(Invalid, match="is not allowed"):
        BoundedQueue("ollama", *bounds)
