"""Uploads and the document list: bytes first, then the row and its job in one transaction."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from chatbot_core import slots as slot_map
from chatbot_core.errors import Invalid, NotFound, TooLarge, Unavailable
from chatbot_core.retry import Deadline
from chatbot_core.runtime_config import Live
from chatbot_runtime.domain import sniffing
from chatbot_runtime.domain.admission import BoundedQueue
from chatbot_runtime.domain.model import Document, DocumentState, NewDocument, Page
from chatbot_runtime.domain.placement import place
from chatbot_runtime.ports import BlobStore, Clock, Documents, EventLog, Shards
from chatbot_runtime.services.slots import slot

log = logging.getLogger(__name__)

NAME_MAX_CHARACTERS: Final = 255
PAGE_MAX: Final = 200
_POLL_S: Final = 0.1
_REACH_S: Final = 1.0
_REACHED_KEPT: Final = 100_000
_UPLOADS_AT_ONCE: Final = 8
_UPLOADS_WAITING: Final = 64


@dataclass(slots=True)
class _Counted:
    """What went through on the way to the store."""

    limit_bytes: int
    head: bytes = b""
    media_type: str = ""
    size_bytes: int = 0
    sha256: hashlib._Hash = field(default_factory=hashlib.sha256)

    async def through(self, content: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        """Pass bytes on. Raises TooLarge in the middle, Invalid for what cannot be read."""
        held = b""
        async for block in content:
            self.size_bytes += len(block)
            if self.size_bytes > self.limit_bytes:
                raise TooLarge("content", f"more than {self.limit_bytes} bytes", "smaller")
            self.sha256.update(block)
            if len(self.head) < sniffing.HEAD_BYTES:
                self.head, held = self.head + block, held + block
                continue
            self._tell()
            yield held + block
            held = b""
        if self.size_bytes == 0:
            raise Invalid("content", "no bytes", "a file with text")
        self._tell()
        if held:
            yield held

    def _tell(self) -> None:
        """Decide the format before the first byte is passed on."""
        self.media_type = self.media_type or sniffing.media_type(self.head[: sniffing.HEAD_BYTES])


class Reach:
    """Which published documents the shards answer for already; asked once a document."""

    def __init__(self, log: EventLog, shards: Shards, clock: Clock) -> None:
        self._log = log
        self._shards = shards
        self._clock = clock
        self._known: OrderedDict[tuple[int, int], None] = OrderedDict()

    async def reached(self, document: Document) -> bool:
        """Say whether the slot's owner has applied everything that was published in the slot."""
        key = (document.doc_no, document.ver)
        if key in self._known:
            return True
        generation = await self._log.generation()
        counters = await self._log.counters(generation.gen)
        seq = next((c.seq for c in counters if c.slot == document.slot), 0)
        deadline = Deadline.after(self._clock.monotonic_s(), _REACH_S)
        try:
            if not await self._shards.searchable(document.slot, seq, deadline):
                return False
        except Unavailable:
            return False
        self._known[key] = None
        if len(self._known) > _REACHED_KEPT:
            self._known.popitem(last=False)
        return True


@dataclass(frozen=True, slots=True)
class DocumentService:
    """Everything about documents that a person asks for, always inside the caller's workspace."""

    documents: Documents
    stores: Mapping[str, BlobStore]
    reach: Reach
    clock: Clock
    live: Callable[[], Live]
    random_id: Callable[[], str]
    uploads: BoundedQueue = field(
        default_factory=lambda: BoundedQueue("uploads", _UPLOADS_AT_ONCE, _UPLOADS_WAITING, 30)
    )

    async def upload(
        self,
        workspace: str,
        name: str,
        content: AsyncIterator[bytes],
        *,
        doc_id: str = "",
        upload_key: str = "",
    ) -> tuple[Document, bool]:
        """Store a document and queue its ingest; the same bytes give the same document and False.

        Raises TooLarge beyond the cluster's limit, Invalid for a bad name, an unreadable format
        or an `upload_key` that came with other bytes, Busy when too many upload. Without a
        `doc_id` a random one is drawn.
        """
        _check_name(name)
        object_id, doc_id = f"{workspace}/{self.random_id()}", doc_id or self.random_id()
        store = self._store_of(object_id)
        counted = _Counted(self.live().ingest.max_document_size_bytes)
        async with slot(self.uploads, self.clock):
            try:
                await store.put(object_id, counted.through(content), "application/octet-stream")
            except (Invalid, Unavailable, asyncio.CancelledError):
                await _discard(store, object_id)
                raise
            new = NewDocument(
                doc_id=doc_id,
                workspace=workspace,
                name=name,
                media_type=counted.media_type,
                size_bytes=counted.size_bytes,
                sha256=counted.sha256.digest(),
                store=store.name,
                object_id=object_id,
                slot=slot_map.slot_of(doc_id),
                upload_key=upload_key,
            )
            try:
                document, created = await self.documents.register(new)
            except (Invalid, NotFound):
                await _discard(store, object_id)
                raise
        if not created:
            await _discard(store, object_id)
        return document, created

    async def get(self, workspace: str, doc_id: str) -> Document:
        """Return a document, Searchable only once its shard answers for it. Raises NotFound."""
        document = await self.documents.get(workspace, doc_id)
        if document.state is not DocumentState.SEARCHABLE or await self.reach.reached(document):
            return document
        return replace(document, state=DocumentState.PROCESSING)

    async def page(
        self, workspace: str, cursor: str, limit: int, text: str, state: DocumentState | None
    ) -> Page:
        """Return a page, newest first. Raises Invalid for a bad cursor or limit."""
        if not 1 <= limit <= PAGE_MAX:
            raise Invalid("limit", limit, f"1 to {PAGE_MAX}")
        return await self.documents.page(workspace, cursor, limit, text, state)

    async def delete(self, workspace: str, doc_id: str) -> None:
        """Take a document out of every answer. Raises NotFound."""
        await self.documents.delete(workspace, doc_id)

    async def content(self, workspace: str, doc_id: str) -> tuple[Document, AsyncIterator[bytes]]:
        """Return a document and its original bytes. Raises NotFound, Unavailable.

        The first block is there when this returns: a store that is away fails the request, not
        the body of an answer that has begun.
        """
        document = await self.documents.get(workspace, doc_id)
        store = self.stores.get(document.store)
        if store is None:
            raise Unavailable(f"document store {document.store}", "it is not configured here")
        blocks = store.get(document.object_id)
        return document, _rejoined(await anext(blocks, b""), blocks)

    async def progress(
        self, workspace: str, doc_id: str, deadline: Deadline
    ) -> AsyncIterator[Document]:
        """Yield a document now and at each change of state, until it is final or the deadline."""
        last: DocumentState | None = None
        while not deadline.passed(self.clock.monotonic_s()):
            document = await self.get(workspace, doc_id)
            if document.state != last:
                last = document.state
                yield document
            if last in {DocumentState.SEARCHABLE, DocumentState.FAILED}:
                return
            await asyncio.sleep(_POLL_S)

    def _store_of(self, object_id: str) -> BlobStore:
        """Return the store that a new object goes to."""
        if not self.stores:
            raise Unavailable("document store", "none is configured")
        return self.stores[place(object_id, self.stores)]


async def _discard(store: BlobStore, object_id: str) -> None:
    """Remove bytes that got no row; where that fails too the sweep finds them."""
    with contextlib.suppress(Unavailable, NotFound):
        await store.delete(object_id)


def _check_name(name: str) -> None:
    if not 1 <= len(name) <= NAME_MAX_CHARACTERS or not name.isprintable():
        raise Invalid("name", name, f"1 to {NAME_MAX_CHARACTERS} printable characters")


async def _rejoined(first: bytes, rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield first
    async for block in rest:
        yield block
