"""The line before the embedder is bounded and keeps its order."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import numpy as np
from fakes.application import WordEmbedder
from numpy.typing import NDArray

from chatbot_core.errors import Busy
from chatbot_runtime.clock import SystemClock
from chatbot_runtime.services.embedding import QueuedEmbedder


class SlowEmbedder(WordEmbedder):
    """Notes what it is asked, one at a time."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.running = 0

    async def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        self.running += 1
        assert self.running == 1
        self.asked.extend(texts)
        await asyncio.sleep(0.001)
        self.running -= 1
        return await super().embed(texts)


async def test_who_finds_the_line_full_is_sent_away_and_the_others_keep_their_order() -> None:
    slow = SlowEmbedder()
    queued = QueuedEmbedder(slow, SystemClock(), max_waiting=4)

    ended = await asyncio.gather(
        *(queued.embed([f"text {n}"]) for n in range(9)), return_exceptions=True
    )

    assert slow.asked == [f"text {n}" for n in range(5)]
    assert [isinstance(one, Busy) for one in ended] == [False] * 5 + [True] * 4
    assert (queued.fingerprint, queued.dimension) == (slow.fingerprint, slow.dimension)
