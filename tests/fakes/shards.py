"""The vector tier in memory: every live row of an event log, searched by brute force."""

from __future__ import annotations

import numpy as np

from chatbot_core.errors import Invalid
from chatbot_core.retry import Deadline
from chatbot_runtime.domain.model import Found, Hit, Query
from chatbot_runtime.domain.scatter import ALL_SLOTS, merged
from chatbot_runtime.ports import EventLog


class FakeShards:
    """The port `Shards` over any event log; `missing` are slots that nobody answers for."""

    def __init__(self, events: EventLog, dimension: int = 384) -> None:
        self._events = events
        self._dimension = dimension
        self.missing: frozenset[int] = frozenset()

    async def search(self, query: Query, deadline: Deadline) -> Found:
        if len(query.vector) != self._dimension:
            raise Invalid("vector", len(query.vector), f"{self._dimension} dimensions")
        if query.generation != (await self._events.generation()).gen:
            return Found((), ALL_SLOTS)
        after = dict.fromkeys(ALL_SLOTS - self.missing, 0)
        _, documents = await self._events.pull(query.generation, after)
        hits = [
            Hit(document.doc_no, document.ver, int(ord_), float(vector @ query.vector))
            for document in documents
            if document.workspace == query.workspace
            and (not query.documents or document.doc_no in query.documents)
            for ord_, vector in zip(document.ords, document.vectors.astype(np.float32), strict=True)
        ]
        return Found(merged([hits], query.k), self.missing)

    async def searchable(self, slot: int, seq: int, deadline: Deadline) -> bool:
        counters = await self._events.counters((await self._events.generation()).gen)
        return slot not in self.missing and counters[slot].seq >= seq
