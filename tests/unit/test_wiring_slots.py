"""Waiting for a slot in coroutines: order, bound, time limit, cancellation."""

from __future__ import annotations

import asyncio

import pytest

from chatbot_core.errors import Busy
from chatbot_core.retry import Deadline
from chatbot_runtime.clock import SystemClock
from chatbot_runtime.domain.admission import BoundedQueue
from chatbot_runtime.services.slots import slot, take

CLOCK = SystemClock()


async def test_a_waiter_gets_the_slot_that_another_gives_back() -> None:
    queue = BoundedQueue("embedder", 1, 1, 5)
    first = await take(queue, CLOCK)
    second = asyncio.create_task(take(queue, CLOCK))
    await asyncio.sleep(0)
    assert (queue.running, queue.waiting) == (1, 1)
    queue.leave(first, CLOCK.monotonic_s())
    queue.leave(await second, CLOCK.monotonic_s())
    assert (queue.running, queue.waiting) == (0, 0)


async def test_a_full_line_refuses_at_once() -> None:
    queue = BoundedQueue("embedder", 1, 0, 5)
    async with slot(queue, CLOCK):
        with pytest.raises(Busy, match="embedder is busy; retry in 1 s"):
            await take(queue, CLOCK)


@pytest.mark.parametrize(("max_wait_s", "left_s"), [(0.02, 5.0), (5.0, 0.02)])
async def test_a_wait_ends_at_the_nearer_of_its_two_limits(
    max_wait_s: float, left_s: float
) -> None:
    queue = BoundedQueue("embedder", 1, 1, max_wait_s)
    async with slot(queue, CLOCK):
        with pytest.raises(Busy):
            await take(queue, CLOCK, Deadline.after(CLOCK.monotonic_s(), left_s))
        assert queue.waiting == 0
    assert queue.running == 0


async def test_a_cancelled_waiter_leaves_the_line() -> None:
    queue = BoundedQueue("embedder", 1, 1, 5)
    async with slot(queue, CLOCK):
        waiter = asyncio.create_task(take(queue, CLOCK))
        await asyncio.sleep(0)
        waiter.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiter
        assert queue.waiting == 0


async def test_a_waiter_cancelled_in_the_moment_of_its_turn_gives_the_slot_on() -> None:
    queue = BoundedQueue("embedder", 1, 2, 5)
    first = await take(queue, CLOCK)
    waiter = asyncio.create_task(take(queue, CLOCK))
    await asyncio.sleep(0)
    queue.leave(first, CLOCK.monotonic_s())
    waiter.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiter
    assert queue.running == 0


async def test_an_error_inside_gives_the_slot_back() -> None:
    queue = BoundedQueue("embedder", 1, 0, 5)
    with pytest.raises(ValueError, match="inside"):
        async with slot(queue, CLOCK):
            raise ValueError("inside")
    assert queue.running == 0
