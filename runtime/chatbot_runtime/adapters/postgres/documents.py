"""Documents and their passages, always inside one workspace."""

from __future__ import annotations

import base64
import binascii
import json
import logging
from collections.abc import Mapping, Sequence
from typing import Any, Final

from chatbot_core import names
from chatbot_core.errors import Invalid, NotFound, Unavailable
from chatbot_core.runtime_config import RetrievalStatus
from chatbot_runtime.adapters.postgres import events, rows
from chatbot_runtime.adapters.postgres.pool import Database, storable
from chatbot_runtime.domain.model import (
    Document,
    DocumentState,
    Hit,
    JobKind,
    NewDocument,
    Page,
    Passage,
)

log = logging.getLogger(__name__)

_SELECT: Final = f"SELECT {rows.DOCUMENT} FROM document"  # noqa: S608 - constant columns

_INSERT: Final = (
    """
INSERT INTO document (doc_id, workspace, name, media_type, size_bytes, sha256, store, object_id,
                      slot)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)
ON CONFLICT (workspace, sha256) WHERE NOT deleted DO NOTHING RETURNING
"""
    + rows.DOCUMENT
)

_ENQUEUE: Final = """
INSERT INTO job (kind, key, workspace, payload) VALUES ($1, $2, $3, $4::jsonb)
ON CONFLICT (kind, key) WHERE failed_at IS NULL DO NOTHING
"""

# A failed one that is uploaded again. Its job may still be in the hands of the worker that is
# about to give it up: removed here, it cannot take the new one along.
_RETRY: Final = f"""
WITH again AS (UPDATE document SET state = 'Queued', error = ''
               WHERE doc_no = $1 AND state = 'Failed' AND NOT deleted RETURNING *),
     former AS (DELETE FROM job USING again WHERE kind = $2 AND key = again.doc_no::text)
SELECT {rows.DOCUMENT} FROM again
"""  # noqa: S608 - constant columns

_KEEP_KEY: Final = """
WITH forgotten AS (DELETE FROM upload_key WHERE created_at < now() - interval '1 day')
INSERT INTO upload_key (workspace, upload_key, sha256, doc_no) VALUES ($1, $2, $3, $4)
ON CONFLICT DO NOTHING
"""

_BY_KEY: Final = """
SELECT k.sha256, d.doc_id, d.deleted FROM upload_key k JOIN document d USING (doc_no)
WHERE k.workspace = $1 AND k.upload_key = $2 AND k.created_at > now() - interval '1 day'
"""

_PAGE: Final = f"""{_SELECT}
WHERE workspace = $1 AND NOT deleted AND ($2::bigint IS NULL OR doc_no < $2)
  AND ($3 = '' OR strpos(lower(name), lower($3)) > 0) AND ($4::text IS NULL OR state = $4)
ORDER BY doc_no DESC LIMIT $5
"""

# The last wall. The chunk's text is joined only through a Live event of this workspace, version
# and generation; `foreign` says that a hit belongs to another workspace, which must never happen.
_PASSAGES: Final = """
SELECT hit.i, e.workspace <> $1 AS foreign_hit, d.doc_id, d.name, c.page, c.first, c.past, c.body
FROM unnest($3::bigint[], $4::integer[], $5::integer[]) WITH ORDINALITY AS hit(doc_no, ver, ord, i)
LEFT JOIN doc_event e ON e.gen = $2 AND e.doc_no = hit.doc_no
LEFT JOIN document d ON d.doc_no = e.doc_no AND d.workspace = $1 AND NOT d.deleted
LEFT JOIN chunk c ON c.gen = $2 AND c.doc_no = d.doc_no AND c.ver = hit.ver AND c.ord = hit.ord
     AND c.workspace = $1 AND e.workspace = $1 AND e.state = 'Live' AND e.ver = hit.ver
ORDER BY hit.i
"""

_UNNAMED: Final = """
SELECT object_id FROM unnest($2::text[]) AS old(object_id)
WHERE NOT EXISTS (SELECT FROM document d
                  WHERE d.object_id = old.object_id AND d.store = $1 AND NOT d.deleted)
  AND NOT EXISTS (SELECT FROM job j
                  WHERE j.kind = $3 AND j.key = old.object_id AND j.failed_at IS NULL)
"""

_COUNTS: Final = """
SELECT g.gen AS generation, m.epoch AS slot_map_epoch,
       (SELECT count(*) FROM document WHERE NOT deleted AND workspace <> $1) AS documents,
       (SELECT coalesce(sum(chunks), 0)::bigint FROM doc_event e
        WHERE e.gen = g.gen AND e.state = 'Live' AND e.workspace <> $1) AS chunks
FROM generation g CROSS JOIN slot_map m WHERE g.reads
"""


_STORED: Final = """
SELECT store, count(*) FROM (
    SELECT store FROM document WHERE NOT deleted AND workspace <> $1
    UNION ALL
    SELECT payload->>'store' FROM job
    WHERE kind = $2 AND failed_at IS NULL AND workspace <> $1
) AS held GROUP BY store
"""


class PostgresDocuments:
    """The port `Documents` over PostgreSQL."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def register(self, new: NewDocument) -> tuple[Document, bool]:
        """Insert row and ingest job in one transaction; the same bytes are the same document.

        A failed one is queued again. Raises Invalid for a name that cannot be stored and for an
        upload key that came with other bytes, NotFound for a key whose document is deleted.
        """
        if storable(new.name) != new.name:
            raise Invalid("name", new.name, "text without NUL or broken characters")
        # Two turns at most in practice: the row that conflicted may be deleted before it is read.
        for _ in range(5):
            async with self._database.transaction() as connection:
                await _check_key(connection, new)
                document, created = await _registered(connection, new)
                if document is not None:
                    await _keep_key(connection, new, document)
                    return document, created
        raise Unavailable("database", "the same document is uploaded and deleted all the time")

    async def get(self, workspace: str, doc_id: str) -> Document:
        """Return a document that is not deleted. Raises NotFound."""
        row = await self._database.fetchrow(
            _SELECT + " WHERE workspace = $1 AND doc_id = $2 AND NOT deleted",
            workspace,
            storable(doc_id),
        )
        if row is None:
            raise NotFound(f"document {doc_id} does not exist")
        return rows.document(row)

    async def by_no(self, doc_no: int) -> Document | None:
        """Return a document by its inner number, None once deleted."""
        row = await self._database.fetchrow(
            _SELECT + " WHERE doc_no = $1 AND NOT deleted",
            doc_no,
        )
        return None if row is None else rows.document(row)

    async def page(
        self, workspace: str, cursor: str, limit: int, text: str, state: DocumentState | None
    ) -> Page:
        """Return a page, newest first; `text` matches names. Raises Invalid for a bad cursor."""
        found = await self._database.fetch(
            _PAGE, workspace, before(cursor), storable(text), state and state.value, limit + 1
        )
        items = tuple(rows.document(row) for row in found[:limit])
        more = len(found) > limit and bool(items)
        return Page(items, cursor_after(items[-1].doc_no) if more else "")

    async def numbers(self, workspace: str, doc_ids: Sequence[str]) -> frozenset[int]:
        """Return the inner numbers of live documents. Raises NotFound if one is not there."""
        found = await self._database.fetch(
            "SELECT doc_no, doc_id FROM document"
            " WHERE workspace = $1 AND doc_id = ANY($2::text[]) AND NOT deleted",
            workspace,
            [storable(doc_id) for doc_id in doc_ids],
        )
        missing = set(doc_ids) - {row["doc_id"] for row in found}
        if missing:
            raise NotFound(f"document {min(missing)} does not exist")
        return frozenset(row["doc_no"] for row in found)

    async def delete(self, workspace: str, doc_id: str) -> None:
        """Write Dead events and the erase job in one transaction. Raises NotFound."""
        async with self._database.transaction() as connection:
            generations = await connection.fetch(
                "SELECT gen FROM generation ORDER BY gen FOR SHARE"
            )
            row = await connection.fetchrow(
                _SELECT + " WHERE workspace = $1 AND doc_id = $2 AND NOT deleted FOR UPDATE",
                workspace,
                storable(doc_id),
            )
            if row is None:
                raise NotFound(f"document {doc_id} does not exist")
            document = rows.document(row)
            await connection.execute(
                "UPDATE document SET deleted = true WHERE doc_no = $1", document.doc_no
            )
            await connection.execute("DELETE FROM chunk WHERE doc_no = $1", document.doc_no)
            payload = {"store": document.store, "object_id": document.object_id}
            await connection.execute(
                _ENQUEUE, JobKind.ERASE, document.object_id, workspace, json.dumps(payload)
            )
            for generation in generations:
                await events.write_event(connection, generation["gen"], document, None)

    async def passages(
        self, workspace: str, generation: int, hits: Sequence[Hit]
    ) -> tuple[Passage, ...]:
        """Return the hits' texts that pass the last wall, in the order of the hits."""
        found = await self._database.fetch(
            _PASSAGES,
            workspace,
            generation,
            [hit.doc_no for hit in hits],
            [hit.ver for hit in hits],
            [hit.ord for hit in hits],
        )
        foreign = sum(1 for row in found if row["foreign_hit"])
        if foreign:
            log.error("hits of another workspace dropped", extra={"count": foreign})
        return tuple(
            _passage(hit, row)
            for hit, row in zip(hits, found, strict=True)
            if row["body"] is not None
        )

    async def set_state(self, doc_no: int, ver: int, state: DocumentState, error: str) -> None:
        """Record progress; no effect on another version, nor on one that is searchable already."""
        await self._database.execute(
            "UPDATE document SET state = $3, error = $4"
            " WHERE doc_no = $1 AND ver = $2 AND NOT deleted AND state <> 'Searchable'",
            doc_no,
            ver,
            state.value,
            storable(error),
        )

    async def unnamed(self, store: str, object_ids: Sequence[str]) -> tuple[str, ...]:
        """Return those objects of a store that no document names and no erase job waits for."""
        found = await self._database.fetch(_UNNAMED, store, list(object_ids), JobKind.ERASE)
        return tuple(row["object_id"] for row in found)

    async def counts(self) -> RetrievalStatus:
        """Return the corpus as counted, over all workspaces but the self-test's."""
        row = await self._database.fetchrow(_COUNTS, names.SELF_TEST_WORKSPACE)
        if row is None:
            raise Unavailable("database", "schema not migrated yet")
        return RetrievalStatus(**dict(row))

    async def stored(self) -> dict[str, int]:
        """Return by store how many documents it holds and how many objects wait to be erased."""
        rows_ = await self._database.fetch(_STORED, names.SELF_TEST_WORKSPACE, JobKind.ERASE)
        return {row["store"]: row["count"] for row in rows_}


def _columns(new: NewDocument) -> tuple[object, ...]:
    return (
        new.doc_id,
        new.workspace,
        new.name,
        new.media_type,
        new.size_bytes,
        new.sha256,
        new.store,
        new.object_id,
        new.slot,
    )


async def _registered(connection: Any, new: NewDocument) -> tuple[Document | None, bool]:
    """Return the row and whether it is new; None where the row of these bytes just vanished."""
    row = await connection.fetchrow(_INSERT, *_columns(new))
    if row is not None:
        document = rows.document(row)
        await _enqueue_ingest(connection, document)
        return document, True
    row = await connection.fetchrow(
        _SELECT + " WHERE workspace = $1 AND sha256 = $2 AND NOT deleted", new.workspace, new.sha256
    )
    if row is None:
        return None, False
    document = rows.document(row)
    if document.state is DocumentState.FAILED:
        again = await connection.fetchrow(_RETRY, document.doc_no, JobKind.INGEST)
        if again is not None:
            document = rows.document(again)
            await _enqueue_ingest(connection, document)
    return document, False


async def _check_key(connection: Any, new: NewDocument) -> None:
    """Raise Invalid for a key of other bytes, NotFound where its document is deleted."""
    if not new.upload_key:
        return
    # Two uploads under one key come one after the other.
    await connection.execute(
        "SELECT pg_advisory_xact_lock(hashtextextended($1, 0))",
        f"upload/{new.workspace}/{new.upload_key}",
    )
    known = await connection.fetchrow(_BY_KEY, new.workspace, new.upload_key)
    if known is None:
        return
    if known["sha256"] != new.sha256:
        raise Invalid("Idempotency-Key", new.upload_key, "a new one for other bytes")
    if known["deleted"]:
        raise NotFound(f"document {known['doc_id']} of this Idempotency-Key is deleted")


async def _keep_key(connection: Any, new: NewDocument, document: Document) -> None:
    if new.upload_key:
        await connection.execute(
            _KEEP_KEY, new.workspace, new.upload_key, new.sha256, document.doc_no
        )


async def _enqueue_ingest(connection: Any, document: Document) -> None:
    payload = {"doc_no": document.doc_no, "ver": document.ver}
    await connection.execute(
        _ENQUEUE, JobKind.INGEST, str(document.doc_no), document.workspace, json.dumps(payload)
    )


def _passage(hit: Hit, row: Mapping[str, Any]) -> Passage:
    return Passage(
        doc_no=hit.doc_no,
        doc_id=row["doc_id"],
        ver=hit.ver,
        ord=hit.ord,
        name=row["name"],
        page=row["page"],
        start=row["first"],
        end=row["past"],
        text=row["body"],
        score=hit.score,
    )


def cursor_after(doc_no: int) -> str:
    """Return the opaque cursor that continues below a document."""
    return base64.urlsafe_b64encode(doc_no.to_bytes(8, "big")).decode()


def before(cursor: str) -> int | None:
    """Return the number that a page stays below, None for the first. Raises Invalid."""
    if not cursor:
        return None
    try:
        raw = base64.b64decode(cursor.encode("ascii"), altchars=b"-_", validate=True)
    except (binascii.Error, UnicodeEncodeError, ValueError):
        raw = b""
    number = int.from_bytes(raw, "big")
    if len(raw) != 8 or number >= 1 << 63:  # noqa: PLR2004 - a bigint
        raise Invalid("cursor", cursor, "a cursor that an earlier page returned")
    return number
