"""The application's outside worlds in memory: an embedder, a model, shards and a store."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from fakes.data import World
from numpy.typing import NDArray

from chatbot_core.errors import ChatbotError, NotFound
from chatbot_core.retry import Deadline
from chatbot_core.runtime_config import ModelStatus
from chatbot_runtime.domain.model import (
    AnswerEnd,
    Found,
    GenerationOptions,
    Hit,
    Message,
    Query,
    Token,
)
from chatbot_runtime.domain.sentences import stems


class WordEmbedder:
    """The port `Embedder`: a bag of stems hashed into 384 dimensions."""

    fingerprint = "test-embedder"
    dimension = 384

    async def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        return np.array([self._vector(text) for text in texts], dtype=np.float32)

    def _vector(self, text: str) -> NDArray[np.float32]:
        vector = np.zeros(self.dimension, dtype=np.float32)
        for word in stems(text) or ["."]:
            digest = hashlib.sha256(word.encode()).digest()
            vector[int.from_bytes(digest[:4], "big") % self.dimension] += 1.0
        return vector / np.linalg.norm(vector)


@dataclass
class ScriptedModel:
    """The port `LanguageModel`: says its tokens, or fails before one of them."""

    tokens: tuple[str, ...] = ("45", " days", ".")
    error: ChatbotError | None = None
    error_before: int = 1
    prompts: list[tuple[Message, ...]] = field(default_factory=list)
    options: list[GenerationOptions] = field(default_factory=list)
    closed: int = 0
    loaded: bool = True

    async def stream(
        self, messages: Sequence[Message], options: GenerationOptions, deadline: Deadline
    ) -> AsyncGenerator[Token | AnswerEnd, None]:
        self.prompts.append(tuple(messages))
        self.options.append(options)
        try:
            for n, text in enumerate(self.tokens, start=1):
                if self.error and n == self.error_before:
                    raise self.error
                yield Token(n, text)
            yield AnswerEnd("stop", 40, len(self.tokens), 0.1, 0.2, options.model)
        finally:
            self.closed += 1

    async def status(self) -> ModelStatus:
        return ModelStatus(name="scripted", digest="d1", loaded=self.loaded)


@dataclass
class ExactShards:
    """The port `Shards`: exact search over what a `World` has published."""

    world: World
    missing: frozenset[int] = frozenset()

    async def search(self, query: Query, deadline: Deadline) -> Found:
        hits = []
        for (doc_no, ver, ord_), (_, vector) in self.world.chunks.items():
            event = self.world.events.get(doc_no)
            if (
                event is None
                or not event.live
                or event.document.workspace != query.workspace
                or (query.documents and doc_no not in query.documents)
                or event.document.slot in self.missing
            ):
                continue
            hits.append(Hit(doc_no, ver, ord_, float(query.vector @ vector.astype(np.float32))))
        best = sorted(hits, key=lambda hit: -hit.score)[: query.k]
        return Found(tuple(best), self.missing)

    async def searchable(self, slot: int, seq: int, deadline: Deadline) -> bool:
        return slot not in self.missing and self.world.counters[slot].seq >= seq


@dataclass
class MemoryStore:
    """The port `BlobStore` in memory."""

    name: str = "main"
    objects: dict[str, bytes] = field(default_factory=dict)
    old: set[str] = field(default_factory=set)

    async def put(self, object_id: str, content: AsyncIterator[bytes], media_type: str) -> None:
        blocks = [block async for block in content]
        self.objects[object_id] = b"".join(blocks)

    async def get(self, object_id: str) -> AsyncIterator[bytes]:
        if object_id not in self.objects:
            raise NotFound(f"object {object_id} does not exist")
        yield self.objects[object_id]

    async def delete(self, object_id: str) -> None:
        self.objects.pop(object_id, None)

    async def older_than(self, age_s: float) -> tuple[str, ...]:
        return tuple(sorted(self.old & self.objects.keys()))
