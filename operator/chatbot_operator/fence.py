"""Whether this process may write now: asked right before every request that changes something.

Not once a pass and not once a call: a process can be frozen between any two requests.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import Callable, Iterator

from chatbot_core.errors import Denied


class Fence:
    """Lets writes begin while `left_s()`, in seconds, is above 0; knows which are under way."""

    def __init__(self, left_s: Callable[[], float] = lambda: math.inf) -> None:
        self._left_s = left_s
        self._under_way = 0
        self._none_is = asyncio.Event()
        self._none_is.set()

    @contextlib.contextmanager
    def writing(self, most_s: float) -> Iterator[float]:
        """Yield how long this write may take, at most `most_s`. Raises Denied when none may."""
        left_s = min(most_s, self._left_s())
        if left_s <= 0:
            raise Denied("another process leads: this one writes nothing")
        self._under_way += 1
        self._none_is.clear()
        try:
            yield left_s
        finally:
            self._under_way -= 1
            if not self._under_way:
                self._none_is.set()

    async def drained(self) -> None:
        """Wait until no write is under way."""
        await self._none_is.wait()
