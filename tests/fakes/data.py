"""The data plane in memory: what PostgreSQL promises, in one dictionary each."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from chatbot_core import names
from chatbot_core.errors import Invalid, NotFound, Unavailable
from chatbot_core.runtime_config import RetrievalStatus
from chatbot_core.slots import SLOT_COUNT, initial_owners
from chatbot_runtime.adapters.postgres.documents import before, cursor_after
from chatbot_runtime.domain import digest
from chatbot_runtime.domain.model import (
    Chunk,
    Document,
    DocumentState,
    Generation,
    Hit,
    Job,
    JobKind,
    NewDocument,
    Page,
    Passage,
    PulledDocument,
    SlotCounter,
    SlotMap,
)


class ManualClock:
    """Time that a test moves."""

    def __init__(self, now_s: float = 1000.0) -> None:
        self.now_s = now_s

    def monotonic_s(self) -> float:
        return self.now_s

    def unix_s(self) -> float:
        return 1_700_000_000.0 + self.now_s


@dataclass
class _Event:
    document: Document
    seq: int
    ver: int
    live: bool
    chunks: int


@dataclass
class _Job:
    job: Job
    due_s: float
    lease_s: float = 0.0
    failed: bool = False


@dataclass
class World:
    """What one database holds."""

    clock: ManualClock = field(default_factory=ManualClock)
    shards: int = 2
    documents: dict[int, Document] = field(default_factory=dict)
    deleted: set[int] = field(default_factory=set)
    jobs: dict[int, _Job] = field(default_factory=dict)
    events: dict[int, _Event] = field(default_factory=dict)
    chunks: dict[tuple[int, int, int], tuple[Chunk, NDArray[np.float16]]] = field(
        default_factory=dict
    )
    counters: dict[int, SlotCounter] = field(
        default_factory=lambda: {slot: SlotCounter(slot, 0, 0) for slot in range(SLOT_COUNT)}
    )
    upload_keys: dict[tuple[str, str], tuple[bytes, int]] = field(default_factory=dict)
    ids: itertools.count[int] = field(default_factory=lambda: itertools.count(1))

    def event(self, document: Document, chunks: int | None) -> None:
        known = self.events.get(document.doc_no)
        live = known.ver if known and known.live else None
        delta = digest.delta(document.doc_no, live, None if chunks is None else document.ver)
        counter = self.counters[document.slot]
        fresh = SlotCounter(document.slot, counter.seq + 1, counter.digest ^ delta)
        self.counters[document.slot] = fresh
        self.events[document.doc_no] = _Event(
            document, fresh.seq, document.ver, chunks is not None, chunks or 0
        )

    def enqueue(
        self, kind: str, key: str, workspace: str, payload: Mapping[str, object], wait_s: float
    ) -> bool:
        for known in self.jobs.values():
            if (known.job.kind, known.job.key, known.failed) == (kind, key, False):
                return False
        job = Job(next(self.ids), str(kind), key, workspace, 0, "", dict(payload))
        self.jobs[job.id] = _Job(job, self.clock.now_s + wait_s)
        return True

    def held(self, job: Job) -> _Job | None:
        known = self.jobs.get(job.id)
        return known if known and not known.failed and known.job.token == job.token else None


class FakeDocuments:
    """The port `Documents` in memory."""

    def __init__(self, world: World) -> None:
        self._world = world

    async def register(self, new: NewDocument) -> tuple[Document, bool]:
        if "\0" in new.name:
            raise Invalid("name", new.name, "text without NUL or broken characters")
        known_key = self._world.upload_keys.get((new.workspace, new.upload_key))
        if known_key is not None:
            sha256, doc_no = known_key
            if sha256 != new.sha256:
                raise Invalid("Idempotency-Key", new.upload_key, "a new one for other bytes")
            if doc_no in self._world.deleted:
                raise NotFound("the document of this Idempotency-Key is deleted")
        document, created = self._registered(new)
        if new.upload_key:
            key = (new.workspace, new.upload_key)
            self._world.upload_keys[key] = (new.sha256, document.doc_no)
        return document, created

    def _again(self, known: Document) -> Document:
        if known.state is not DocumentState.FAILED:
            return known
        key = str(known.doc_no)
        for id_ in [n for n, one in self._world.jobs.items() if one.job.key == key]:
            del self._world.jobs[id_]
        again = replace(known, state=DocumentState.QUEUED, error="")
        self._world.documents[known.doc_no] = again
        payload = {"doc_no": known.doc_no, "ver": known.ver}
        self._world.enqueue(JobKind.INGEST, key, known.workspace, payload, 0)
        return again

    def _registered(self, new: NewDocument) -> tuple[Document, bool]:
        for known in self._live(new.workspace):
            if known.sha256 == new.sha256:
                return self._again(known), False
        document = Document(
            doc_no=next(self._world.ids),
            doc_id=new.doc_id,
            workspace=new.workspace,
            name=new.name,
            media_type=new.media_type,
            size_bytes=new.size_bytes,
            sha256=new.sha256,
            store=new.store,
            object_id=new.object_id,
            slot=new.slot,
            ver=1,
            state=DocumentState.QUEUED,
            error="",
            chunks=0,
            created_at_s=self._world.clock.unix_s(),
        )
        self._world.documents[document.doc_no] = document
        payload = {"doc_no": document.doc_no, "ver": 1}
        self._world.enqueue(JobKind.INGEST, str(document.doc_no), new.workspace, payload, 0)
        return document, True

    async def get(self, workspace: str, doc_id: str) -> Document:
        for known in self._live(workspace):
            if known.doc_id == doc_id:
                return known
        raise NotFound(f"document {doc_id} does not exist")

    async def by_no(self, doc_no: int) -> Document | None:
        return None if doc_no in self._world.deleted else self._world.documents.get(doc_no)

    async def page(
        self, workspace: str, cursor: str, limit: int, text: str, state: DocumentState | None
    ) -> Page:
        below = before(cursor)
        found = [
            document
            for document in sorted(self._live(workspace), key=lambda one: -one.doc_no)
            if (below is None or document.doc_no < below)
            and text.lower() in document.name.lower()
            and state in (None, document.state)
        ]
        items = tuple(found[:limit])
        return Page(items, cursor_after(items[-1].doc_no) if len(found) > limit else "")

    async def numbers(self, workspace: str, doc_ids: Sequence[str]) -> frozenset[int]:
        return frozenset([(await self.get(workspace, doc_id)).doc_no for doc_id in doc_ids])

    async def delete(self, workspace: str, doc_id: str) -> None:
        document = await self.get(workspace, doc_id)
        self._world.deleted.add(document.doc_no)
        for key in [key for key in self._world.chunks if key[0] == document.doc_no]:
            del self._world.chunks[key]
        payload = {"store": document.store, "object_id": document.object_id}
        self._world.enqueue(JobKind.ERASE, document.object_id, workspace, payload, 0)
        self._world.event(document, None)

    async def passages(
        self, workspace: str, generation: int, hits: Sequence[Hit]
    ) -> tuple[Passage, ...]:
        return tuple(
            passage for hit in hits if (passage := self._passage(workspace, generation, hit))
        )

    def _passage(self, workspace: str, generation: int, hit: Hit) -> Passage | None:
        event = self._world.events.get(hit.doc_no)
        stored = self._world.chunks.get((hit.doc_no, hit.ver, hit.ord))
        if (
            generation != 1
            or stored is None
            or event is None
            or (event.live, event.ver, event.document.workspace) != (True, hit.ver, workspace)
        ):
            return None
        chunk, document = stored[0], event.document
        return Passage(
            doc_no=hit.doc_no,
            doc_id=document.doc_id,
            ver=hit.ver,
            ord=hit.ord,
            name=document.name,
            page=chunk.page,
            start=chunk.start,
            end=chunk.end,
            text=chunk.text,
            score=hit.score,
        )

    async def set_state(self, doc_no: int, ver: int, state: DocumentState, error: str) -> None:
        known = await self.by_no(doc_no)
        if known and known.ver == ver and known.state is not DocumentState.SEARCHABLE:
            self._world.documents[doc_no] = replace(known, state=state, error=error)

    async def unnamed(self, store: str, object_ids: Sequence[str]) -> tuple[str, ...]:
        named = {
            document.object_id
            for document in self._world.documents.values()
            if document.store == store and document.doc_no not in self._world.deleted
        } | {known.job.key for known in self._world.jobs.values() if not known.failed}
        return tuple(object_id for object_id in object_ids if object_id not in named)

    async def stored(self) -> dict[str, int]:
        hidden = names.SELF_TEST_WORKSPACE
        held = [
            document.store
            for document in self._world.documents.values()
            if document.doc_no not in self._world.deleted and document.workspace != hidden
        ]
        held += [
            str(known.job.payload["store"])
            for known in self._world.jobs.values()
            if known.job.kind == JobKind.ERASE
            and not known.failed
            and known.job.workspace != hidden
        ]
        return dict(Counter(held))

    async def counts(self) -> RetrievalStatus:
        hidden = names.SELF_TEST_WORKSPACE
        live = [e for e in self._world.events.values() if e.live and e.document.workspace != hidden]
        documents = [
            document
            for document in self._world.documents.values()
            if document.doc_no not in self._world.deleted and document.workspace != hidden
        ]
        return RetrievalStatus(
            generation=1,
            slot_map_epoch=1,
            documents=len(documents),
            chunks=sum(event.chunks for event in live),
        )

    def _live(self, workspace: str) -> list[Document]:
        return [
            document
            for document in self._world.documents.values()
            if document.workspace == workspace and document.doc_no not in self._world.deleted
        ]


class FakeEventLog:
    """The port `EventLog` in memory: generation 1, 384 dimensions."""

    def __init__(self, world: World) -> None:
        self._world = world

    async def generation(self) -> Generation:
        return Generation(1, "test-embedder", 384)

    async def slot_map(self) -> SlotMap:
        return SlotMap(1, initial_owners(self._world.shards))

    async def write_chunks(
        self,
        generation: int,
        document: Document,
        chunks: Sequence[Chunk],
        vectors: NDArray[np.float16],
    ) -> None:
        if not np.isfinite(vectors).all() or not vectors.any(axis=1).all():
            raise Invalid("vectors", "a row", "finite and not all zero")
        event = self._world.events.get(document.doc_no)
        published = event is not None and event.live and event.ver == document.ver
        if self._current(document) and not published:
            for chunk, vector in zip(chunks, vectors, strict=True):
                self._world.chunks[document.doc_no, document.ver, chunk.ord] = (chunk, vector)

    async def publish(self, job: Job, generation: int, document: Document, chunks: int) -> bool:
        rows = [key for key in self._world.chunks if key[:2] == (document.doc_no, document.ver)]
        complete = sum(1 for key in rows if key[2] < chunks) == chunks
        if not (self._world.held(job) and self._current(document)):
            return False
        if not complete:
            raise Unavailable("document", "rows are missing; do it again")
        for key in rows:
            if key[2] >= chunks:
                del self._world.chunks[key]
        self._world.documents[document.doc_no] = replace(
            self._world.documents[document.doc_no],
            state=DocumentState.SEARCHABLE,
            error="",
            chunks=chunks,
        )
        del self._world.jobs[job.id]
        self._world.event(document, chunks)
        return True

    async def counters(self, generation: int) -> tuple[SlotCounter, ...]:
        return tuple(self._world.counters.values()) if generation == 1 else ()

    async def pull(
        self, generation: int, after: Mapping[int, int]
    ) -> tuple[Mapping[int, SlotCounter], tuple[PulledDocument, ...]]:
        events = sorted(
            (
                event
                for event in self._world.events.values()
                if event.seq > after.get(event.document.slot, event.seq)
                and (event.live or after[event.document.slot] > 0)
            ),
            key=lambda event: (event.document.slot, event.seq),
        )
        return (
            {slot: self._world.counters[slot] for slot in after},
            tuple(self._pulled(event) for event in events),
        )

    def _pulled(self, event: _Event) -> PulledDocument:
        document = event.document
        rows = sorted(
            (key[2], vector)
            for key, (_, vector) in self._world.chunks.items()
            if event.live and key[:2] == (document.doc_no, event.ver)
        )
        return PulledDocument(
            doc_no=document.doc_no,
            workspace=document.workspace,
            slot=document.slot,
            seq=event.seq,
            ver=event.ver,
            live=event.live,
            ords=np.array([ord_ for ord_, _ in rows], dtype=np.int32),
            vectors=np.array([vector for _, vector in rows], dtype=np.float16).reshape(
                len(rows), 384 if rows else 0
            ),
        )

    def _current(self, document: Document) -> bool:
        known = self._world.documents.get(document.doc_no)
        deleted = document.doc_no in self._world.deleted
        return known is not None and known.ver == document.ver and not deleted
