"""One pass a key at a time: coalesced, bounded, with backoff after failures and timers.

A key that is added while its pass runs gets exactly one more pass. Modelled on the work queue of
client-go (k8s.io/client-go/util/workqueue): dirty and processing sets.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Hashable
from typing import Final, Generic, TypeVar

from chatbot_core.errors import ChatbotError, Unavailable
from chatbot_core.retry import Backoff

K = TypeVar("K", bound=Hashable)

#: Passes at the same time: they mostly wait for the API server.
CONCURRENCY: Final = 10
#: Every key gets a pass at least this often, with a fifth of jitter.
RESYNC_S: Final = 600.0

BACKOFF: Final = Backoff(base_s=0.5, max_s=60.0)

_log = logging.getLogger(__name__)


class WorkQueue(Generic[K]):
    """Calls `handle(key)` for every added key; it returns when to come back, in seconds."""

    def __init__(
        self,
        handle: Callable[[K], Awaitable[float | None]],
        random: Callable[[], float],
        backoff: Backoff = BACKOFF,
        resync_s: float = RESYNC_S,
    ) -> None:
        self._handle = handle
        self._random = random
        self._backoff = backoff
        self._resync_s = resync_s
        self._waiting: deque[K] = deque()
        self._dirty: set[K] = set()
        self._running: set[K] = set()
        self._failures: dict[K, int] = {}
        self._timers: dict[K, asyncio.TimerHandle] = {}
        self._there_is_work = asyncio.Event()

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, key: K) -> None:
        """Ask for a pass; many calls before it starts make one."""
        if key in self._dirty:
            return
        self._dirty.add(key)
        if key not in self._running:
            self._waiting.append(key)
            self._there_is_work.set()

    def after(self, key: K, wait_s: float) -> None:
        """Ask for a pass in `wait_s` seconds; an earlier timer of the key stays."""
        loop = asyncio.get_running_loop()
        timer = self._timers.get(key)
        if timer is not None and timer.when() <= loop.time() + wait_s:
            return
        self._cancel_timer(key)
        self._timers[key] = loop.call_later(wait_s, self._due, key)

    def forget(self, key: K) -> None:
        """Drop timers and failures of a key that is no more."""
        self._cancel_timer(key)
        self._failures.pop(key, None)

    async def run(self, concurrency: int = CONCURRENCY) -> None:
        """Work until cancelled; passes that run are cancelled with it."""
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(concurrency):
                    group.create_task(self._work())
        finally:
            for key in tuple(self._timers):
                self._cancel_timer(key)

    async def _work(self) -> None:
        while True:
            while not self._waiting:
                self._there_is_work.clear()
                await self._there_is_work.wait()
            await self._one(self._waiting.popleft())

    async def _one(self, key: K) -> None:
        self._dirty.discard(key)
        self._running.add(key)
        self._cancel_timer(key)
        try:
            wait_s = await self._handle(key)
        except Unavailable as error:
            self._retry(key, f"{error}", None)
        except ChatbotError as error:
            self._retry(key, f"{error}", error)
        except Exception as error:  # noqa: BLE001 - one object's fault must not stop the others
            self._retry(key, f"{type(error).__name__}", error)
        else:
            self._failures.pop(key, None)
            resync_s = self._resync_s * (0.9 + 0.2 * self._random())
            self.after(key, resync_s if wait_s is None else min(wait_s, resync_s))
        finally:
            self._running.discard(key)
            if key in self._dirty:
                self._waiting.append(key)
                self._there_is_work.set()

    def _retry(self, key: K, words: str, error: BaseException | None) -> None:
        tries = self._failures.get(key, 0)
        self._failures[key] = tries + 1
        wait_s = self._backoff.wait_s(tries, self._random())
        _log.warning(
            "pass failed",
            exc_info=error,
            extra={"key": str(key), "error": words, "tries": tries + 1, "wait_s": wait_s},
        )
        self.after(key, wait_s)

    def _due(self, key: K) -> None:
        self._timers.pop(key, None)
        self.add(key)

    def _cancel_timer(self, key: K) -> None:
        timer = self._timers.pop(key, None)
        if timer is not None:
            timer.cancel()
