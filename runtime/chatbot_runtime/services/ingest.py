"""The way of a document to being searchable, and the end of its bytes: jobs of the ingest role."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np

from chatbot_core.errors import Invalid, NotFound, TooLarge, Unavailable
from chatbot_core.runtime_config import Live
from chatbot_runtime.domain.chunking import chunk
from chatbot_runtime.domain.model import Chunk, Document, DocumentState, Generation, Job, JobKind
from chatbot_runtime.ports import BlobStore, Documents, Embedder, EventLog, Jobs, Parser
from chatbot_runtime.services.stages import CHUNKS, DOCUMENTS, Stages

log = logging.getLogger(__name__)

#: Objects younger than this may belong to an upload that has no row yet.
UNREFERENCED_AGE_S: Final = 24 * 3600.0
_SWEEP_EVERY_S: Final = 3600.0


@dataclass(frozen=True, slots=True)
class IngestHandler:
    """Bytes to text to chunks to vectors to one published event. Repeating it changes nothing."""

    documents: Documents
    log: EventLog
    stores: Mapping[str, BlobStore]
    parser: Parser
    embedder: Embedder
    stages: Stages
    live: Callable[[], Live]

    async def run(self, job: Job, progress: Callable[[str], None]) -> None:
        """Ingest the version that the job names; a deleted or replaced one needs nothing."""
        document = await self._wanted(job)
        if document is None:
            return
        with self.stages.timed("document_processing"):
            await self._state(document, DocumentState.PROCESSING, "")
            generation = await self._generation()
            chunks = await self._chunks(document)
            await self._write(generation, document, chunks, progress)
            if not await self.log.publish(job, generation.gen, document, len(chunks)):
                log.info("document version overtaken", extra={"doc_id": document.doc_id})
                return
        DOCUMENTS.labels("searchable").inc()
        log.info("document searchable", extra={"doc_id": document.doc_id, "chunks": len(chunks)})

    async def failed(self, job: Job, reason: str) -> None:
        """Show the reason to the document's owner."""
        document = await self._wanted(job)
        if document is not None:
            await self._state(document, DocumentState.FAILED, reason)
            DOCUMENTS.labels("failed").inc()

    async def _wanted(self, job: Job) -> Document | None:
        document = await self.documents.by_no(_number(job, "doc_no"))
        return document if document and document.ver == _number(job, "ver") else None

    async def _state(self, document: Document, state: DocumentState, reason: str) -> None:
        await self.documents.set_state(document.doc_no, document.ver, state, reason)

    async def _generation(self) -> Generation:
        generation = await self.log.generation()
        if generation.fingerprint != self.embedder.fingerprint:
            raise Unavailable("retrieval", "the corpus was embedded by another model")
        return generation

    async def _chunks(self, document: Document) -> tuple[Chunk, ...]:
        content = await self._content(document)
        with self.stages.timed("parse"):
            parsed = await self.parser.parse(content)
        ingest = self.live().ingest
        return await asyncio.to_thread(
            chunk, parsed, ingest.chunk_size_characters, ingest.chunk_overlap_characters
        )

    async def _content(self, document: Document) -> bytes:
        store = self.stores.get(document.store)
        if store is None:
            raise Unavailable(f"document store {document.store}", "it is not configured here")
        content = bytearray()
        try:
            async for block in store.get(document.object_id):
                content += block
                if len(content) > document.size_bytes:
                    raise TooLarge("content", "more bytes than uploaded", "as uploaded")
        except NotFound:
            raise NotFound("the document's bytes are not in its store; upload it again") from None
        if len(content) != document.size_bytes:
            raise Unavailable(f"document store {document.store}", "it sent fewer bytes than stored")
        return bytes(content)

    async def _write(
        self,
        generation: Generation,
        document: Document,
        chunks: tuple[Chunk, ...],
        progress: Callable[[str], None],
    ) -> None:
        size = self.live().ingest.max_parallel_chunks
        for at in range(0, len(chunks), size):
            batch = chunks[at : at + size]
            with self.stages.timed("embed_chunks"):
                vectors = await self.embedder.embed([piece.text for piece in batch])
            with self.stages.timed("write_chunks"):
                await self.log.write_chunks(
                    generation.gen, document, batch, vectors.astype(np.float16)
                )
            CHUNKS.inc(len(batch))
            progress(f"{at + len(batch)}/{len(chunks)} chunks")


@dataclass(frozen=True, slots=True)
class EraseHandler:
    """Removes the bytes of a deleted or replaced document."""

    stores: Mapping[str, BlobStore]

    async def run(self, job: Job, progress: Callable[[str], None]) -> None:
        """Delete the object; one that is gone already is done."""
        store = self.stores.get(str(job.payload["store"]))
        if store is None:
            raise Unavailable(f"document store {job.payload['store']}", "it is not configured here")
        await store.delete(str(job.payload["object_id"]))

    async def failed(self, job: Job, reason: str) -> None:
        """Leave the object to the sweep."""
        log.warning("object left to the sweep", extra={"why": reason})


@dataclass(frozen=True, slots=True)
class SweepHandler:
    """Removes objects that no row names: uploads that ended between bytes and row."""

    documents: Documents
    stores: Mapping[str, BlobStore]

    async def run(self, job: Job, progress: Callable[[str], None]) -> None:
        """Go through every store once."""
        for name, store in self.stores.items():
            old = await store.older_than(UNREFERENCED_AGE_S)
            for object_id in await self.documents.unnamed(name, old):
                await store.delete(object_id)
                log.info("unreferenced object removed", extra={"object_id": object_id})

    async def failed(self, job: Job, reason: str) -> None:
        """Wait for the next sweep."""
        log.warning("sweep failed", extra={"why": reason})


async def plan_sweeps(jobs: Jobs, random: Callable[[], float]) -> None:
    """Queue a sweep every hour, until cancelled; several workers queue it once."""
    while True:
        try:
            await jobs.enqueue(JobKind.SWEEP.value, "all", "", {}, _SWEEP_EVERY_S)
        except Unavailable as error:
            log.info("sweep not queued", extra={"why": str(error)})
        await asyncio.sleep(_SWEEP_EVERY_S * (0.5 + random()))


def _number(job: Job, key: str) -> int:
    value = job.payload.get(key)
    if not isinstance(value, int):
        raise Invalid(f"{job.kind} job's {key}", value, "a number")
    return value
