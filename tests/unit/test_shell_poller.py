"""The poller: each key at its own pace, a bounded number at a time, whatever one of them does."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from chatbot_operator.poller import CONCURRENCY, Poller

LONG_S = 60.0


@asynccontextmanager
async def polling(fetch: Callable[[str], Awaitable[float]]) -> AsyncIterator[Poller[str]]:
    poller = Poller(fetch)
    task = asyncio.create_task(poller.run())
    try:
        yield poller
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_keys_are_fetched_when_they_are_due_and_again_as_they_say() -> None:
    fetched: list[str] = []

    async def fetch(key: str) -> float:
        fetched.append(key)
        return 0.02 if key == "often" and len(fetched) < 4 else LONG_S

    async with polling(fetch) as poller:
        poller.want("later", 0.01)
        poller.want("often")
        poller.want("never", LONG_S)
        await asyncio.sleep(0.1)
    assert fetched == ["often", "later", "often", "often"]


async def test_an_earlier_time_wins_and_a_dropped_key_is_not_fetched() -> None:
    fetched: list[str] = []

    async def fetch(key: str) -> float:
        fetched.append(key)
        return LONG_S

    async with polling(fetch) as poller:
        poller.want("sooner", LONG_S)
        await asyncio.sleep(0)
        poller.want("sooner", 0.01)
        poller.want("sooner", LONG_S)
        poller.want("dropped", 0.01)
        poller.drop(["dropped"])
        poller.want("taken back", 0.01)
        poller.drop(["taken back"])
        poller.want("taken back", 0.02)
        await asyncio.sleep(0.1)
    assert fetched == ["sooner", "taken back"]


async def test_a_key_that_is_dropped_while_it_is_fetched_is_not_asked_for_again() -> None:
    fetched: list[str] = []
    pollers: list[Poller[str]] = []

    async def fetch(key: str) -> float:
        fetched.append(key)
        pollers[0].drop([key])
        return 0.0

    async with polling(fetch) as poller:
        pollers.append(poller)
        poller.want("once")
        await asyncio.sleep(0.05)
    assert fetched == ["once"]


async def test_many_due_keys_share_the_places_and_all_get_one() -> None:
    running, most, fetched = 0, 0, Counter[str]()

    async def fetch(key: str) -> float:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.001)
        running -= 1
        fetched[key] += 1
        return LONG_S

    async with polling(fetch) as poller:
        for number in range(10 * CONCURRENCY):
            poller.want(str(number))
        await asyncio.sleep(0.2)
    assert most == CONCURRENCY
    assert fetched == Counter(map(str, range(10 * CONCURRENCY)))


async def test_a_fault_of_one_key_stops_no_other() -> None:
    fetched: list[str] = []

    async def fetch(key: str) -> float:
        fetched.append(key)
        if key == "broken":
            raise ZeroDivisionError
        return LONG_S

    async with polling(fetch) as poller:
        poller.want("broken")
        poller.want("sound", 0.01)
        await asyncio.sleep(0.05)
    assert fetched == ["broken", "sound"]
