"""Facts that are asked for: each key at its own pace, a bounded number at a time."""

from __future__ import annotations

import asyncio
import heapq
import itertools
import logging
import math
from collections.abc import Awaitable, Callable, Hashable, Iterable
from typing import Final, Generic, TypeVar

K = TypeVar("K", bound=Hashable)

CONCURRENCY: Final = 8
#: Wait after a fault of our own in a fetch, so that it cannot spin.
FAULT_WAIT_S: Final = 30.0

_log = logging.getLogger(__name__)


class Poller(Generic[K]):
    """Calls `fetch(key)` when a key is due; it returns in how many seconds it is due again.

    `_queue` holds (time, number, key) for every time that a key was given; one that is no longer
    the key's time in `_due_s` is passed over.
    """

    def __init__(self, fetch: Callable[[K], Awaitable[float]]) -> None:
        self._fetch = fetch
        self._due_s: dict[K, float] = {}
        self._queue: list[tuple[float, int, K]] = []
        self._numbers = itertools.count()
        self._changed = asyncio.Event()
        self._places = asyncio.Semaphore(CONCURRENCY)

    def want(self, key: K, wait_s: float = 0.0) -> None:
        """Ask for a key in `wait_s` seconds; a key that is due earlier keeps its time."""
        due_s = asyncio.get_running_loop().time() + wait_s
        if due_s < self._due_s.get(key, math.inf):
            self._due_s[key] = due_s
            heapq.heappush(self._queue, (due_s, next(self._numbers), key))
            if self._queue[0][0] == due_s:
                self._changed.set()

    def drop(self, keys: Iterable[K]) -> None:
        """Ask no more for these keys."""
        for key in tuple(keys):
            self._due_s.pop(key, None)

    async def run(self) -> None:
        """Fetch what is due until cancelled."""
        async with asyncio.TaskGroup() as group:
            while True:
                await self._places.acquire()
                key = await self._next()
                self._due_s[key] = math.inf
                group.create_task(self._one(key))

    async def _next(self) -> K:
        """Wait until a key is due and return it."""
        loop = asyncio.get_running_loop()
        while True:
            self._changed.clear()
            while self._queue and self._due_s.get(self._queue[0][2]) != self._queue[0][0]:
                heapq.heappop(self._queue)
            if self._queue and self._queue[0][0] <= loop.time():
                return heapq.heappop(self._queue)[2]
            try:
                async with asyncio.timeout_at(self._queue[0][0] if self._queue else None):
                    await self._changed.wait()
            except TimeoutError:
                continue

    async def _one(self, key: K) -> None:
        try:
            wait_s = await self._fetch(key)
        except Exception:  # noqa: BLE001 - one key must not stop the others
            _log.exception("poll failed", extra={"key": str(key)})
            wait_s = FAULT_WAIT_S
        finally:
            self._places.release()
        if key in self._due_s:
            self.want(key, wait_s)
