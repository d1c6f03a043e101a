"""Exact inner-product search over the live rows of one shard.

Rows are stored as float16, the value the whole service uses, in one FAISS array a workspace; a
query is float32. Filters (live, slot, document) are a bitmap that FAISS reads before it ranks
(`IDSelectorBitmap`), so that no filter costs recall. All calls are synchronous: in the event loop
of a shard a document appears and disappears whole, between two searches.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import faiss
import numpy as np
from numpy.typing import NDArray

from chatbot_core.errors import Invalid
from chatbot_runtime.domain import digest
from chatbot_runtime.domain.model import Hit, PulledDocument, Query

#: Rows asked beyond k, so that equal scores at the edge are seen and ordered by identity.
_TIE_MARGIN: Final = 8
_FIRST_CAPACITY: Final = 64

# FAISS replaces generated signatures when it is imported; type checkers see the generated ones.
_faiss: Any = faiss


@dataclass(frozen=True, slots=True)
class _Live:
    """A live document: where its rows are."""

    ver: int
    workspace: str
    slot: int
    first: int
    past: int


class FaissIndex:
    """The port `VectorIndex`: rows of many workspaces, kept apart."""

    def __init__(self, dimension: int) -> None:
        faiss.omp_set_num_threads(1)  # one query cannot use more, and threads would fight
        self._dimension = dimension
        self._live: dict[int, _Live] = {}
        self._rows: dict[str, _Rows] = {}
        self._slots: dict[int, set[int]] = {}

    @property
    def documents(self) -> int:
        """Return how many documents are live."""
        return len(self._live)

    @property
    def rows(self) -> int:
        """Return how many rows are live."""
        return sum(live.past - live.first for live in self._live.values())

    @property
    def stored_rows(self) -> int:
        """Return how many rows take memory, the dead until compaction among them."""
        return sum(rows.count for rows in self._rows.values())

    def apply(self, document: PulledDocument) -> int:
        """Apply one event whole; return what it changes in the slot's digest."""
        if document.live:
            self._check_rows(document)
        before = self._live.get(document.doc_no)
        fresh: _Live | None = None
        if document.live:
            rows = self._rows.setdefault(document.workspace, _Rows(self._dimension))
            first = rows.append(document)
            past = first + len(document.ords)
            fresh = _Live(document.ver, document.workspace, document.slot, first, past)
            self._slots.setdefault(document.slot, set()).add(document.doc_no)
            self._live[document.doc_no] = fresh
        if before is not None:
            self._bury(document.doc_no, before, replaced=fresh is not None)
        return digest.delta(
            document.doc_no,
            before.ver if before else None,
            document.ver if document.live else None,
        )

    def drop_slot(self, slot: int) -> None:
        """Forget every document of a slot."""
        for doc_no in tuple(self._slots.pop(slot, ())):
            self._bury(doc_no, self._live[doc_no], replaced=False)

    def search(self, query: Query, slots: frozenset[int]) -> tuple[Hit, ...]:
        """Return the best k among live rows of these slots, the query's workspace and documents."""
        if query.k <= 0:
            return ()
        vector = self._checked(query.vector)
        rows = self._rows.get(query.workspace)
        if rows is None:
            return ()
        admitted = rows.alive[: rows.count]
        if not slots.issuperset(rows.slots_seen):
            wanted = np.zeros(1024, dtype=bool)
            wanted[list(slots)] = True
            admitted = admitted & wanted[rows.slot[: rows.count]]
        if query.documents:
            admitted = admitted & self._of_documents(rows, query)
        return rows.best(vector, query.k, admitted)

    def _of_documents(self, rows: _Rows, query: Query) -> NDArray[np.bool_]:
        mask = np.zeros(rows.count, dtype=bool)
        for doc_no in query.documents:
            live = self._live.get(doc_no)
            if live is not None and live.workspace == query.workspace:
                mask[live.first : live.past] = True
        return mask

    def _bury(self, doc_no: int, dead: _Live, *, replaced: bool) -> None:
        if not replaced:
            del self._live[doc_no]
            self._slots.get(dead.slot, set()).discard(doc_no)
        elif self._live[doc_no].slot != dead.slot:
            self._slots.get(dead.slot, set()).discard(doc_no)
        if dead.first == dead.past:
            return  # a document without rows; its workspace may have none at all
        rows = self._rows[dead.workspace]
        rows.bury(dead.first, dead.past)
        if rows.dead * 2 > rows.count:
            self._compact(dead.workspace, rows)

    def _compact(self, workspace: str, rows: _Rows) -> None:
        """Rewrite a workspace's rows without the dead ones, and its documents' places."""
        if rows.dead == rows.count:
            del self._rows[workspace]
            return
        places = rows.compacted()
        for doc_no in {int(doc_no) for doc_no in rows.doc_no[: rows.count]}:
            live = self._live[doc_no]
            shift = live.first - int(places[live.first])
            self._live[doc_no] = _Live(
                live.ver, workspace, live.slot, live.first - shift, live.past - shift
            )

    def _checked(self, vector: NDArray[np.float32]) -> NDArray[np.float32]:
        row = np.ascontiguousarray(vector, dtype=np.float32).reshape(1, -1)
        if row.shape[1] != self._dimension:
            raise Invalid("vector", row.shape[1], f"{self._dimension} dimensions")
        if not np.isfinite(row).all() or not row.any():
            raise Invalid("vector", "a row", "finite and not all zero")
        return row

    def _check_rows(self, document: PulledDocument) -> None:
        vectors = document.vectors
        if len(document.ords) != len(vectors):
            raise Invalid("vectors", len(vectors), f"{len(document.ords)} rows")
        if len(vectors) and vectors.shape[1] != self._dimension:
            raise Invalid("vectors", vectors.shape[1], f"{self._dimension} dimensions")
        if not np.isfinite(vectors).all() or not vectors.any(axis=1).all():
            raise Invalid("vectors", "a row", "finite and not all zero")


class _Rows:
    """The rows of one workspace: FAISS codes and, by row number, what they belong to."""

    def __init__(self, dimension: int) -> None:
        self._index = _empty(dimension)
        self._dimension = dimension
        self.count = 0
        self.dead = 0
        self.slots_seen: set[int] = set()
        self.doc_no: NDArray[np.int64] = np.empty(_FIRST_CAPACITY, dtype=np.int64)
        self.ver: NDArray[np.int32] = np.empty(_FIRST_CAPACITY, dtype=np.int32)
        self.ord: NDArray[np.int32] = np.empty(_FIRST_CAPACITY, dtype=np.int32)
        self.slot: NDArray[np.int16] = np.empty(_FIRST_CAPACITY, dtype=np.int16)
        self.alive: NDArray[np.bool_] = np.zeros(_FIRST_CAPACITY, dtype=bool)

    def append(self, document: PulledDocument) -> int:
        """Add a document's rows; return the first row's number."""
        first, past = self.count, self.count + len(document.ords)
        self._reserve(past)
        if past > first:
            self._index.add_sa_codes(np.ascontiguousarray(document.vectors, "<f2").view(np.uint8))
        self.doc_no[first:past] = document.doc_no
        self.ver[first:past] = document.ver
        self.ord[first:past] = document.ords
        self.slot[first:past] = document.slot
        self.alive[first:past] = True
        self.slots_seen.add(document.slot)
        self.count = past
        return first

    def bury(self, first: int, past: int) -> None:
        """Hide rows; their memory returns at compaction."""
        self.alive[first:past] = False
        self.dead += past - first

    def compacted(self) -> NDArray[np.int64]:
        """Drop dead rows; return the new number of each old row (of live ones)."""
        alive = self.alive[: self.count].copy()
        codes = faiss.vector_to_array(self._index.codes).reshape(-1, self._index.code_size)
        self._index = _empty(self._dimension)
        self._index.add_sa_codes(np.ascontiguousarray(codes[alive]))
        kept = int(alive.sum())
        for column in (self.doc_no, self.ver, self.ord, self.slot):
            column[:kept] = column[: self.count][alive]
        self.alive[:kept] = True
        self.alive[kept:] = False
        places: NDArray[np.int64] = np.cumsum(alive, dtype=np.int64) - 1
        self.count, self.dead = kept, 0
        self.slots_seen = {int(slot) for slot in np.unique(self.slot[:kept])}
        return places

    def best(
        self, vector: NDArray[np.float32], k: int, admitted: NDArray[np.bool_]
    ) -> tuple[Hit, ...]:
        """Return the k best admitted rows, equal scores by doc_no and ord."""
        available = int(np.count_nonzero(admitted))
        selector: Any = None
        if available < self.count:
            bits = np.packbits(admitted, bitorder="little")
            selector = _faiss.IDSelectorBitmap(bits)
        width = k + _TIE_MARGIN
        while True:
            width = min(width, available)
            if width == 0:
                return ()
            parameters = None if selector is None else _faiss.SearchParameters(sel=selector)
            scores, found = self._index.search(vector, width, params=parameters)
            # The edge is settled when the last row found scores less than the k-th.
            if width == available or scores[0, -1] < scores[0, k - 1]:
                return self._ordered(scores[0], found[0], k)
            width *= 4

    def _ordered(
        self, scores: NDArray[np.float32], found: NDArray[np.int64], k: int
    ) -> tuple[Hit, ...]:
        order = np.lexsort((self.ord[found], self.doc_no[found], -scores))[:k]
        return tuple(
            Hit(int(self.doc_no[row]), int(self.ver[row]), int(self.ord[row]), float(score))
            for row, score in zip(found[order], scores[order], strict=True)
        )

    def _reserve(self, rows: int) -> None:
        capacity = len(self.doc_no)
        if rows <= capacity:
            return
        capacity = max(rows, capacity * 3 // 2)
        self.doc_no = _grown(self.doc_no, capacity)
        self.ver = _grown(self.ver, capacity)
        self.ord = _grown(self.ord, capacity)
        self.slot = _grown(self.slot, capacity)
        self.alive = _grown(self.alive, capacity)


def _empty(dimension: int) -> Any:
    return faiss.IndexScalarQuantizer(
        dimension, faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT
    )


def _grown(column: NDArray[Any], capacity: int) -> NDArray[Any]:
    grown = np.zeros(capacity, dtype=column.dtype)
    grown[: len(column)] = column
    return grown
