from __future__ import annotations

import pytest

from chatbot_core.errors import Busy, Unavailable
from chatbot_core.retry import Backoff, Clockwork, Deadline, retry


class FakeTime:
    def __init__(self) -> None:
        self.now_s = 100.0
        self.waits_s: list[float] = []

    async def sleep(self, wait_s: float) -> None:
        self.waits_s.append(wait_s)
        self.now_s += wait_s

    def clockwork(self, random: float = 1.0) -> Clockwork:
        return Clockwork(lambda: self.now_s, self.sleep, lambda: random)


class Flaky:
    def __init__(self, failures: list[Exception]) -> None:
        self.failures = failures
        self.calls = 0

    async def __call__(self) -> str:
        self.calls += 1
        if self.failures:
            raise self.failures.pop(0)
        return "answer"


async def test_an_unavailable_world_is_asked_again_with_growing_waits() -> None:
    time = FakeTime()
    attempt = Flaky([Unavailable("s3"), Unavailable("s3"), Unavailable("s3")])
    assert await retry(attempt, Deadline(200.0), time.clockwork()) == "answer"
    assert time.waits_s == pytest.approx([0.1, 0.2, 0.4])


@pytest.mark.parametrize("named_s", [1.0, 5.0])
async def test_a_longer_wait_that_the_world_names_is_obeyed(named_s: float) -> None:
    time = FakeTime()
    attempt = Flaky([Unavailable("s3", retry_after_s=named_s)])
    await retry(attempt, Deadline(200.0), time.clockwork())
    assert time.waits_s == [named_s]


async def test_the_deadline_ends_it_before_a_wait_that_would_pass_it() -> None:
    time = FakeTime()
    attempt = Flaky([Unavailable("s3") for _ in range(100)])
    with pytest.raises(Unavailable):
        await retry(attempt, Deadline(100.5), time.clockwork())
    assert time.now_s < 100.5


async def test_nothing_else_is_retried() -> None:
    attempt = Flaky([Busy("queue", 1.0)])
    with pytest.raises(Busy):
        await retry(attempt, Deadline(200.0), FakeTime().clockwork())
    assert attempt.calls == 1


def test_a_deadline_counts_down_to_zero() -> None:
    deadline = Deadline.after(10.0, 2.5)
    assert [deadline.left_ms(now_s) for now_s in (10.0, 12.0, 13.0)] == [2500, 500, 0]


def test_waits_are_jittered_and_capped() -> None:
    backoff = Backoff(base_s=0.1, max_s=10.0)
    assert (backoff.wait_s(0, 0.0), backoff.wait_s(60, 1.0)) == (0.05, 10.0)
