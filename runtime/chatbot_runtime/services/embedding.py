"""The bounded line before an embedder, which embeds one request at a time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from chatbot_runtime.domain.admission import BoundedQueue
from chatbot_runtime.ports import Clock, Embedder
from chatbot_runtime.services.slots import slot

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_MAX_WAITING: Final = 64
_MAX_WAIT_S: Final = 10.0


class QueuedEmbedder:
    """The port `Embedder`: first come, first served, and sent away when too many wait."""

    def __init__(self, embedder: Embedder, clock: Clock, max_waiting: int = _MAX_WAITING) -> None:
        self._embedder = embedder
        self._clock = clock
        self._queue = BoundedQueue("the embedder", 1, max_waiting, _MAX_WAIT_S)

    @property
    def fingerprint(self) -> str:
        """Return what identifies the vectors."""
        return self._embedder.fingerprint

    @property
    def dimension(self) -> int:
        """Return the length of a vector."""
        return self._embedder.dimension

    async def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return unit vectors, shape (len(texts), dimension). Raises Busy when too many wait."""
        async with slot(self._queue, self._clock):
            return await self._embedder.embed(texts)
