"""The index against a brute-force oracle, through any history of documents."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from chatbot_core.errors import Invalid
from chatbot_runtime.adapters.faiss_index import FaissIndex
from chatbot_runtime.domain import digest
from chatbot_runtime.domain.model import Hit, PulledDocument, Query

DIMENSION = 4
ALL = frozenset(range(1024))


def event(
    doc_no: int,
    ver: int,
    vectors: NDArray[np.float16] | None,
    workspace: str = "w",
    slot: int | None = None,
) -> PulledDocument:
    rows = np.empty((0, 0), np.float16) if vectors is None else vectors
    return PulledDocument(
        doc_no=doc_no,
        workspace=workspace,
        slot=doc_no % 4 if slot is None else slot,
        seq=1,
        ver=ver,
        live=vectors is not None,
        ords=np.arange(len(rows), dtype=np.int32),
        vectors=rows,
    )


@dataclass
class Oracle:
    """Every live document, searched row by row."""

    live: dict[int, PulledDocument] = field(default_factory=dict)

    def apply(self, document: PulledDocument) -> None:
        if document.live:
            self.live[document.doc_no] = document
        else:
            self.live.pop(document.doc_no, None)

    def search(self, query: Query, slots: frozenset[int]) -> list[tuple[float, int, int, int]]:
        found = [
            (
                -float(query.vector @ vector.astype(np.float32)),
                document.doc_no,
                int(ord_),
                document.ver,
            )
            for document in self.live.values()
            for ord_, vector in zip(document.ords, document.vectors, strict=True)
            if document.workspace == query.workspace
            and document.slot in slots
            and (not query.documents or document.doc_no in query.documents)
        ]
        return sorted(found)[: query.k]


# Few exact values: many equal scores, so that the order of ties is tested all the time.
VALUE = st.sampled_from([-1.0, -0.5, 0.5, 1.0])
VECTOR = st.lists(VALUE, min_size=DIMENSION, max_size=DIMENSION)
ROWS = st.lists(VECTOR, min_size=0, max_size=12).map(
    lambda rows: np.array(rows, np.float16).reshape(-1, DIMENSION)
)
EVENT = st.tuples(st.integers(1, 12), st.one_of(st.none(), ROWS))


@settings(deadline=None, max_examples=150)
@given(
    st.lists(EVENT, max_size=40),
    VECTOR,
    st.integers(1, 30),
    st.frozensets(st.integers(0, 3)),
    st.frozensets(st.integers(1, 14), max_size=3),
)
def test_any_history_gives_what_brute_force_gives(
    history: list[tuple[int, NDArray[np.float16] | None]],
    vector: list[float],
    k: int,
    slots: frozenset[int],
    documents: frozenset[int],
) -> None:
    index, oracle = FaissIndex(DIMENSION), Oracle()
    held = 0
    for ver, (doc_no, rows) in enumerate(history, start=1):
        one = event(doc_no, ver, rows, workspace="w" if doc_no % 3 else "v")
        held ^= index.apply(one)
        oracle.apply(one)
    assert held == digest.combined((doc.doc_no, doc.ver) for doc in oracle.live.values())
    assert index.documents == len(oracle.live)
    assert index.rows == sum(len(doc.ords) for doc in oracle.live.values())
    assert index.stored_rows <= 2 * index.rows
    for workspace in ("w", "v", "nobody"):
        for asked in (ALL, slots):
            query = Query(np.array(vector, np.float32), workspace, k, 1, documents)
            expected = oracle.search(query, asked)
            assert index.search(query, asked) == tuple(
                Hit(doc_no, ver, ord_, -score) for score, doc_no, ord_, ver in expected
            )


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(1, 12), ROWS), max_size=20), st.integers(0, 3))
def test_a_dropped_slot_is_gone_and_comes_back(
    history: list[tuple[int, NDArray[np.float16]]], slot: int
) -> None:
    index, oracle = FaissIndex(DIMENSION), Oracle()
    for ver, (doc_no, rows) in enumerate(history, start=1):
        index.apply(event(doc_no, ver, rows))
        oracle.apply(event(doc_no, ver, rows))
    index.drop_slot(slot)
    query = Query(np.ones(DIMENSION, np.float32), "w", 1000, 1)

    def same(slots: frozenset[int]) -> bool:
        return [(hit.doc_no, hit.ord) for hit in index.search(query, ALL)] == [
            (doc_no, ord_) for _, doc_no, ord_, _ in oracle.search(query, slots)
        ]

    assert same(ALL - {slot})
    for document in oracle.live.values():
        if document.slot == slot:
            index.apply(document)
    assert same(ALL)


def test_equal_rows_come_by_number_also_at_the_edge_of_k() -> None:
    index = FaissIndex(DIMENSION)
    rows = np.ones((40, DIMENSION), np.float16)
    for doc_no in (9, 3, 7):
        index.apply(event(doc_no, 1, rows))
    query = Query(np.ones(DIMENSION, np.float32), "w", 42, 1)
    expected = [(3, n) for n in range(40)] + [(7, 0), (7, 1)]
    assert [(hit.doc_no, hit.ord) for hit in index.search(query, ALL)] == expected


@pytest.mark.parametrize(
    "vector", [[np.nan, 0, 0, 0], [np.inf, 0, 0, 0], [0, 0, 0, 0], [1, 0, 0], [1, 0, 0, 0, 0]]
)
def test_a_vector_that_cannot_be_searched_with_is_refused(vector: list[float]) -> None:
    index = FaissIndex(DIMENSION)
    with pytest.raises(Invalid, match="vector"):
        index.search(Query(np.array(vector, np.float32), "w", 3, 1), ALL)
    with pytest.raises(Invalid, match="vector"):
        index.apply(event(1, 1, np.array([vector], np.float16)))
    assert (index.documents, index.stored_rows) == (0, 0)


def test_an_empty_shard_and_a_k_above_all_rows_answer() -> None:
    index = FaissIndex(DIMENSION)
    query = Query(np.ones(DIMENSION, np.float32), "w", 100, 1)
    assert index.search(query, ALL) == ()
    index.apply(event(1, 1, np.ones((2, DIMENSION), np.float16)))
    assert [hit.ord for hit in index.search(query, ALL)] == [0, 1]


def test_memory_of_dead_rows_returns() -> None:
    index = FaissIndex(DIMENSION)
    for ver in range(1, 100):
        index.apply(event(1, ver, np.ones((50, DIMENSION), np.float16)))
    assert index.stored_rows <= 100
    index.apply(event(1, 100, None))
    assert index.stored_rows == 0
