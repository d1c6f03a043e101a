"""Ingest, erase and sweep against a real PostgreSQL, interrupted at every step."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pytest
from fakes.application import MemoryStore, WordEmbedder
from numpy.typing import NDArray

from chatbot_core.runtime_config import Ingest, Live
from chatbot_runtime.adapters.parsing import ConfinedParser
from chatbot_runtime.adapters.postgres.documents import PostgresDocuments
from chatbot_runtime.adapters.postgres.events import PostgresEventLog
from chatbot_runtime.adapters.postgres.jobs import PostgresJobs
from chatbot_runtime.adapters.postgres.pool import Database
from chatbot_runtime.clock import SystemClock
from chatbot_runtime.domain.model import DocumentState, Hit, JobKind, NewDocument
from chatbot_runtime.services.ingest import EraseHandler, IngestHandler, SweepHandler
from chatbot_runtime.services.jobs import Worker
from chatbot_runtime.services.stages import Stages
from chatbot_runtime.services.windows import Windows

TEXT = "".join(f"Sentence number {n} speaks of lamp {n}.\n\n" for n in range(60))
LEASE_S = 0.3


@dataclass
class InterruptedEmbedder(WordEmbedder):
    """Ends the worker's task at its n-th batch, as a kill would."""

    at: int = -1
    calls: int = field(default=0)

    async def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        self.calls += 1
        if self.calls == self.at:
            raise asyncio.CancelledError
        return await super().embed(texts)


class Service:
    """Handlers over one database and one store."""

    def __init__(self, database: Database) -> None:
        self.documents = PostgresDocuments(database)
        self.log = PostgresEventLog(database)
        self.jobs = PostgresJobs(database)
        self.store = MemoryStore()
        self.stores = {"main": self.store}

    def worker(self, embedder: WordEmbedder) -> Worker:
        live = Live(ingest=Ingest(chunk_size_characters=100, chunk_overlap_characters=10))
        ingest = IngestHandler(
            self.documents,
            self.log,
            self.stores,
            ConfinedParser(),
            embedder,
            Stages(SystemClock(), Windows(lambda: 0.5)),
            lambda: live,
        )
        handlers = {
            JobKind.INGEST: ingest,
            JobKind.ERASE: EraseHandler(self.stores),
            JobKind.SWEEP: SweepHandler(self.documents, self.stores),
        }
        return Worker(self.jobs, handlers, lambda: 0.5, lease_s=LEASE_S)

    async def register(self, content: bytes) -> int:
        self.store.objects["default/o1"] = content
        new = NewDocument(
            "d1", "default", "a.txt", "text/plain", len(content), b"s" * 32, "main", "default/o1", 7
        )
        return (await self.documents.register(new))[0].doc_no

    async def texts(self, doc_no: int) -> list[str]:
        hits = [Hit(doc_no, 1, ord_, 1.0) for ord_ in range(200)]
        return [p.text for p in await self.documents.passages("default", 1, hits)]


@pytest.fixture
async def service(database: Database) -> Service:
    return Service(database)


@pytest.mark.parametrize("batch", [1, 2, 3])
async def test_a_worker_killed_at_any_batch_leaves_the_same_result_to_the_next(
    service: Service, batch: int
) -> None:
    doc_no = await service.register(TEXT.encode())

    with contextlib.suppress(asyncio.CancelledError):
        await service.worker(InterruptedEmbedder(at=batch)).step()
    halfway = await service.texts(doc_no)
    await asyncio.sleep(LEASE_S + 0.1)
    finished = await service.worker(WordEmbedder()).step()

    document = await service.documents.get("default", "d1")
    texts = await service.texts(doc_no)
    counters = {c.slot: c.seq for c in await service.log.counters(1) if c.seq}
    assert (halfway, finished) == ([], True)
    assert (document.state, document.chunks, document.error) == (
        DocumentState.SEARCHABLE,
        len(texts),
        "",
    )
    assert all(f"lamp {n}." in " ".join(texts) for n in range(60))
    assert counters == {7: 1}
    assert not await service.worker(WordEmbedder()).step()


async def test_a_poison_file_fails_with_its_reason_and_the_worker_goes_on(
    service: Service,
) -> None:
    await service.register(b"%PDF-1.7\nbroken")

    assert await service.worker(WordEmbedder()).step()

    document = await service.documents.get("default", "d1")
    assert document.state is DocumentState.FAILED
    assert "the file cannot be read" in document.error
    assert not await service.worker(WordEmbedder()).step()


async def test_a_deleted_document_loses_its_passages_and_its_bytes(service: Service) -> None:
    doc_no = await service.register(TEXT.encode())
    await service.worker(WordEmbedder()).step()

    await service.documents.delete("default", "d1")
    passages = await service.texts(doc_no)
    erased = await service.worker(WordEmbedder()).step()

    assert (passages, erased, service.store.objects) == ([], True, {})


async def test_a_document_deleted_while_it_waits_needs_no_work(service: Service) -> None:
    await service.register(TEXT.encode())
    await service.documents.delete("default", "d1")
    worker = service.worker(WordEmbedder())

    assert [await worker.step() for _ in range(3)] == [True, True, False]
    assert service.store.objects == {}


async def test_the_sweep_removes_old_objects_that_no_row_names(service: Service) -> None:
    await service.register(TEXT.encode())
    service.store.objects |= {"default/lost": b"x", "default/young": b"y"}
    service.store.old = {"default/o1", "default/lost"}
    worker = service.worker(WordEmbedder())
    await worker.step()

    await service.jobs.enqueue(JobKind.SWEEP, "all", "", {}, 0)
    await worker.step()

    assert set(service.store.objects) == {"default/o1", "default/young"}
