"""The work queue: one pass a key at a time, coalesced, retried, timed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from chatbot_core.errors import Unavailable
from chatbot_core.retry import Backoff
from chatbot_operator.workqueue import WorkQueue


@asynccontextmanager
async def running(
    handle: Callable[[str], Awaitable[float | None]], resync_s: float = 600.0
) -> AsyncIterator[WorkQueue[str]]:
    queue: WorkQueue[str] = WorkQueue(
        handle, lambda: 0.5, Backoff(base_s=0.01, max_s=0.02), resync_s
    )
    task = asyncio.create_task(queue.run())
    try:
        yield queue
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_many_adds_during_a_pass_make_one_more() -> None:
    passes, gate = [], asyncio.Event()

    async def handle(key: str) -> None:
        passes.append(key)
        await gate.wait()

    async with running(handle) as queue:
        queue.add("a")
        await asyncio.sleep(0.01)
        for _ in range(5):
            queue.add("a")
        gate.set()
        await asyncio.sleep(0.02)
    assert passes == ["a", "a"]


async def test_a_key_is_never_worked_on_twice_at_once_but_keys_run_side_by_side() -> None:
    now: set[str] = set()
    together = 0

    async def handle(key: str) -> None:
        nonlocal together
        assert key not in now
        now.add(key)
        together = max(together, len(now))
        await asyncio.sleep(0.01)
        now.discard(key)

    async with running(handle) as queue:
        for _ in range(3):
            for key in "abc":
                queue.add(key)
            await asyncio.sleep(0.005)
        await asyncio.sleep(0.05)
    assert together == 3


async def test_a_failure_is_retried_and_a_fault_of_one_key_spares_the_others() -> None:
    passes: list[str] = []

    async def handle(key: str) -> None:
        passes.append(key)
        if key == "bad":
            raise KeyError(key)
        if passes.count("weak") < 3 and key == "weak":
            raise Unavailable("Kubernetes API")

    async with running(handle) as queue:
        for key in ("bad", "weak", "good"):
            queue.add(key)
        await asyncio.sleep(0.2)
    assert passes.count("good") == 1
    assert passes.count("weak") == 3
    assert passes.count("bad") > 3


async def test_a_pass_says_when_it_comes_back_and_resync_is_the_latest() -> None:
    passes: list[str] = []

    async def handle(key: str) -> float | None:
        passes.append(key)
        return 0.01 if key == "soon" else None

    async with running(handle, resync_s=0.1) as queue:
        queue.add("soon")
        queue.add("calm")
        await asyncio.sleep(0.25)
    assert passes.count("soon") > 5
    assert passes.count("calm") in {2, 3}


async def test_the_earlier_of_two_timers_stays() -> None:
    passes: list[str] = []

    async def handle(key: str) -> None:
        passes.append(key)

    async with running(handle) as queue:
        queue.after("a", 0.02)
        queue.after("a", 5)
        await asyncio.sleep(0.05)
        assert passes == ["a"]
