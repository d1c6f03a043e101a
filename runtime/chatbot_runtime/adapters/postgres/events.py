"""The event log: counters, chunk rows and the transactions that make a document visible.

Discipline of every transaction that writes an event: lock the generation row FOR SHARE, then the
job, then the document, then rows of the document, and take the slot's counter LAST. Whoever holds
the counter waits for nobody, so counters cannot deadlock; and since the next sequence is given out
only after the former holder has committed or aborted, a reader that sees counter n sees every
event up to n. `nextval`, `max(seq)` and advisory locks do not give that.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from chatbot_core.errors import Invalid, Unavailable
from chatbot_runtime.adapters.postgres.pool import Database, storable
from chatbot_runtime.domain import digest
from chatbot_runtime.domain.model import (
    Chunk,
    Document,
    Generation,
    Job,
    PulledDocument,
    SlotCounter,
    SlotMap,
)

_WRITABLE: Final = """
SELECT NOT EXISTS (SELECT FROM doc_event
                   WHERE gen = $1 AND doc_no = $2 AND ver = $3 AND state = 'Live')
FROM document WHERE doc_no = $2 AND ver = $3 AND NOT deleted FOR SHARE
"""

# One statement: the counter's row lock is the last wait of the transaction, and the upsert behind
# it cannot wait, because every writer of this document's event holds the document row.
WRITE_EVENT: Final = """
WITH counter AS (
    UPDATE slot_seq SET seq = seq + 1, digest = digest # $8
    WHERE gen = $1 AND slot = $4 RETURNING seq)
INSERT INTO doc_event (gen, doc_no, workspace, slot, seq, ver, state, chunks)
SELECT $1, $2, $3, $4, counter.seq, $5, $6, $7 FROM counter
ON CONFLICT (gen, doc_no) DO UPDATE
SET seq = excluded.seq, ver = excluded.ver, state = excluded.state, chunks = excluded.chunks
"""

_EVENTS: Final = """
SELECT e.doc_no, e.workspace, e.slot, e.seq, e.ver, e.state = 'Live' AS live, e.chunks
FROM unnest($2::smallint[], $3::bigint[]) AS asked(slot, seq)
JOIN doc_event e ON e.gen = $1 AND e.slot = asked.slot AND e.seq > asked.seq
WHERE e.state = 'Live' OR asked.seq > 0
ORDER BY e.slot, e.seq
"""

# One row a document with its vectors joined to one value: no object a chunk in this process.
_VECTORS: Final = """
SELECT c.doc_no, array_agg(c.ord ORDER BY c.ord) AS ords,
       string_agg(c.vector, ''::bytea ORDER BY c.ord) AS vectors
FROM unnest($2::bigint[], $3::integer[], $4::text[]) AS live(doc_no, ver, workspace)
JOIN chunk c ON c.gen = $1 AND c.doc_no = live.doc_no AND c.ver = live.ver
     AND c.workspace = live.workspace
GROUP BY c.doc_no
"""


async def live_version(connection: Any, generation: int, doc_no: int) -> int | None:
    """Return the version that a document is live with, read under its document row's lock."""
    version: int | None = await connection.fetchval(
        "SELECT ver FROM doc_event WHERE gen = $1 AND doc_no = $2 AND state = 'Live'",
        generation,
        doc_no,
    )
    return version


async def write_event(
    connection: Any, generation: int, document: Document, chunks: int | None
) -> None:
    """Write the document's event, Dead where `chunks` is None; the transaction's last lock."""
    before = await live_version(connection, generation, document.doc_no)
    after = None if chunks is None else document.ver
    await connection.execute(
        WRITE_EVENT,
        generation,
        document.doc_no,
        document.workspace,
        document.slot,
        document.ver,
        "Dead" if chunks is None else "Live",
        chunks or 0,
        digest.delta(document.doc_no, before, after),
    )


class PostgresEventLog:
    """The port `EventLog` over PostgreSQL."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._last: tuple[object, tuple[SlotCounter, ...]] = (None, ())

    async def generation(self) -> Generation:
        """Return the generation that reads use. Raises Unavailable before the first migration."""
        row = await self._database.fetchrow(
            "SELECT gen, fingerprint, dimension FROM generation WHERE reads"
        )
        if row is None:
            raise Unavailable("database", "schema not migrated yet")
        return Generation(**dict(row))

    async def slot_map(self) -> SlotMap:
        """Return who owns which slot."""
        row = await self._database.fetchrow("SELECT epoch, owners, next FROM slot_map")
        if row is None:
            raise Unavailable("database", "schema not migrated yet")
        return SlotMap(row["epoch"], tuple(row["owners"]), tuple(row["next"]))

    async def write_chunks(
        self,
        generation: int,
        document: Document,
        chunks: Sequence[Chunk],
        vectors: NDArray[np.float16],
    ) -> None:
        """Write a batch of invisible rows, replacing those of a former try.

        Vectors have shape (len(chunks), dimension). Writes nothing where the version is no longer
        wanted or visible already: `publish` tells. Raises Invalid for vectors that no search may
        meet.
        """
        check_vectors(vectors, len(chunks))
        rows = np.ascontiguousarray(vectors, dtype="<f2")
        records = [
            (
                generation,
                document.doc_no,
                document.ver,
                chunk.ord,
                document.workspace,
                chunk.start,
                chunk.end,
                chunk.page,
                storable(chunk.text),
                rows[i].tobytes(),
            )
            for i, chunk in enumerate(chunks)
        ]
        async with self._database.transaction() as connection:
            version = (generation, document.doc_no, document.ver)
            if not await connection.fetchval(_WRITABLE, *version):
                return
            await connection.execute(
                "DELETE FROM chunk WHERE gen = $1 AND doc_no = $2 AND ver = $3"
                " AND ord = ANY($4::integer[])",
                *version,
                [chunk.ord for chunk in chunks],
            )
            await connection.copy_records_to_table("chunk", records=records)

    async def publish(self, job: Job, generation: int, document: Document, chunks: int) -> bool:
        """Make the version visible and remove the job, in one transaction.

        False, with nothing changed, where the job's token or the wanted version has moved on.
        Raises Unavailable where fewer than `chunks` rows are there, so that the job runs again.
        """
        version = (generation, document.doc_no, document.ver)
        async with self._database.transaction() as connection:
            await connection.execute("SELECT FROM generation WHERE gen = $1 FOR SHARE", generation)
            if not await connection.fetchval(
                "SELECT true FROM job WHERE id = $1 AND token = $2 AND failed_at IS NULL"
                " FOR UPDATE",
                job.id,
                job.token,
            ) or not await connection.fetchval(
                "SELECT true FROM document WHERE doc_no = $1 AND ver = $2 AND NOT deleted"
                " FOR UPDATE",
                document.doc_no,
                document.ver,
            ):
                return False
            written = await connection.fetchval(
                "SELECT count(*) FROM chunk WHERE gen = $1 AND doc_no = $2 AND ver = $3"
                " AND ord < $4",
                *version,
                chunks,
            )
            if written != chunks:
                raise Unavailable("document", f"{written} of {chunks} rows written; do it again")
            await connection.execute(
                "DELETE FROM chunk WHERE gen = $1 AND doc_no = $2 AND (ver < $3 OR ord >= $4)",
                *version,
                chunks,
            )
            await connection.execute(
                "UPDATE document SET state = 'Searchable', error = '', chunks = $2"
                " WHERE doc_no = $1",
                document.doc_no,
                chunks,
            )
            await connection.execute("DELETE FROM job WHERE id = $1", job.id)
            await write_event(connection, generation, document, chunks)
        return True

    async def counters(self, generation: int) -> tuple[SlotCounter, ...]:
        """Return all slots' counters in one row: the poll of every shard, ten times a second."""
        row = await self._database.fetchrow(
            "SELECT array_agg(slot ORDER BY slot) AS slots, array_agg(seq ORDER BY slot) AS seqs,"
            " array_agg(digest ORDER BY slot) AS digests FROM slot_seq WHERE gen = $1",
            generation,
        )
        if row["slots"] is None:
            return ()
        columns = (row["slots"], row["seqs"], row["digests"])
        if self._last[0] != columns:  # most polls find nothing new: a thousand values less to make
            self._last = (columns, tuple(map(SlotCounter, *columns)))
        return self._last[1]

    async def pull(
        self, generation: int, after: Mapping[int, int]
    ) -> tuple[Mapping[int, SlotCounter], tuple[PulledDocument, ...]]:
        """Return counters and events after slot -> seq, in one repeatable-read snapshot.

        Events come by slot and sequence; a slot asked from 0 leaves out its dead documents.
        """
        async with self._database.transaction("repeatable_read") as connection:
            counters = await connection.fetch(
                "SELECT slot, seq, digest FROM slot_seq WHERE gen = $1 AND slot = ANY($2)",
                generation,
                list(after),
            )
            events = await connection.fetch(_EVENTS, generation, list(after), list(after.values()))
            live = [event for event in events if event["live"]]
            columns = [[e[name] for e in live] for name in ("doc_no", "ver", "workspace")]
            rows = await connection.fetch(_VECTORS, generation, *columns)
        vectors = {row["doc_no"]: row for row in rows}
        return (
            {row["slot"]: SlotCounter(**dict(row)) for row in counters},
            tuple(_pulled(event, vectors.get(event["doc_no"])) for event in events),
        )


def _pulled(event: Mapping[str, Any], rows: Mapping[str, Any] | None) -> PulledDocument:
    ords = np.array(rows["ords"] if rows else [], dtype=np.int32)
    flat = np.frombuffer(rows["vectors"] if rows else b"", dtype="<f2")
    return PulledDocument(
        doc_no=event["doc_no"],
        workspace=event["workspace"],
        slot=event["slot"],
        seq=event["seq"],
        ver=event["ver"],
        live=event["live"],
        ords=ords,
        vectors=flat.reshape(len(ords), -1) if len(ords) else flat.reshape(0, 0),
    )


def check_vectors(vectors: NDArray[np.float16], count: int) -> None:
    """Raise Invalid unless there are `count` finite rows, none of them zero."""
    if vectors.ndim != 2 or len(vectors) != count:  # noqa: PLR2004 - rows and columns
        raise Invalid("vectors", vectors.shape, f"an array of {count} rows")
    if not np.isfinite(vectors).all() or (count and not vectors.any(axis=1).all()):
        raise Invalid("vectors", "a row", "finite and not all zero")
