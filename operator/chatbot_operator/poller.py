"""Facts that are asked for: each key at its own pace, a bounded number at a time."""

from __future__ import annotations

import asyncio
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
    """Calls `fetch(key)` when a key is due; it returns in how many seconds it is due again."""

    def __init__(self, fetch: Callable[[K], Awaitable[float]]) -> None:
        self._fetch = fetch
        self._due_s: dict[K, float] = {}
        self._changed = asyncio.Event()
        self._places = asyncio.Semaphore(CONCURRENCY)

    def wanted(self) -> tuple[K, ...]:
        """Return every key that is asked for."""
        return tuple(self._due_s)

    def want(self, key: K, wait_s: float = 0.0) -> None:
        """Ask for a key in `wait_s` seconds; a key that is due earlier keeps its time."""
        due_s = asyncio.get_running_loop().time() + wait_s
        if due_s < self._due_s.get(key, math.inf):
            self._due_s[key] = due_s
            self._changed.set()

    def drop(self, keys: Iterable[K]) -> None:
        """Ask no more for these keys."""
        for key in tuple(keys):
            self._due_s.pop(key, None)

    async def run(self) -> None:
        """Fetch what is due until cancelled."""
        loop = asyncio.get_running_loop()
        async with asyncio.TaskGroup() as group:
            while True:
                self._changed.clear()
                now_s = loop.time()
                for key in [key for key, due_s in self._due_s.items() if due_s <= now_s]:
                    self._due_s[key] = math.inf
                    group.create_task(self._one(key))
                next_s = min(self._due_s.values(), default=math.inf)
                try:
                    async with asyncio.timeout_at(None if math.isinf(next_s) else next_s):
                        await self._changed.wait()
                except TimeoutError:
                    continue

    async def _one(self, key: K) -> None:
        async with self._places:
            try:
                wait_s = await self._fetch(key)
            except Exception:  # noqa: BLE001 - one key must not stop the others
                _log.exception("poll failed", extra={"key": str(key)})
                wait_s = FAULT_WAIT_S
        if key in self._due_s:
            self.want(key, wait_s)
