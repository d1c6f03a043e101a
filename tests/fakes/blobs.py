"""A document store in memory."""

from __future__ import annotations

from collections.abc import AsyncIterator

from chatbot_core.errors import NotFound
from chatbot_runtime.adapters.object_ids import checked
from chatbot_runtime.ports import Clock


class FakeBlobs:
    """The port `BlobStore` in memory."""

    def __init__(self, clock: Clock, name: str = "main") -> None:
        self._clock = clock
        self._name = name
        self._objects: dict[str, tuple[bytes, float]] = {}

    @property
    def name(self) -> str:
        return self._name

    async def start(self) -> None:
        """Nothing to make."""

    async def put(self, object_id: str, content: AsyncIterator[bytes], media_type: str) -> None:
        checked(object_id)
        whole = b"".join([block async for block in content])
        self._objects[object_id] = (whole, self._clock.unix_s())

    async def get(self, object_id: str) -> AsyncIterator[bytes]:
        if checked(object_id) not in self._objects:
            raise NotFound(f"object {object_id} does not exist")
        yield self._objects[object_id][0]

    async def delete(self, object_id: str) -> None:
        self._objects.pop(checked(object_id), None)

    async def older_than(self, age_s: float) -> tuple[str, ...]:
        before_s = self._clock.unix_s() - age_s
        return tuple(
            sorted(key for key, (_, stored_s) in self._objects.items() if stored_s < before_s)
        )
