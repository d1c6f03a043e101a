"""Frames survive the wire whole, in any cut, and foreign bytes never do harm."""

from __future__ import annotations

import contextlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatbot_core.errors import Invalid, TooLarge
from chatbot_runtime.adapters import wire
from chatbot_runtime.adapters.wire import Frame, Kind
from chatbot_runtime.domain.model import Hit, Query
from chatbot_runtime.domain.scatter import Answer, Ask, Refusal

NATURAL = st.integers(0, 2**63 - 1)
SLOTS = st.frozensets(st.integers(0, 1023))
FLOAT = st.floats(width=32, allow_nan=False)


@st.composite
def asks(draw: st.DrawFn) -> Ask:
    query = Query(
        vector=np.array(draw(st.lists(FLOAT, max_size=8)), dtype=np.float32),
        workspace=draw(st.text(max_size=20)),
        k=draw(st.integers(0, wire.K_MAX)),
        generation=draw(NATURAL),
        documents=draw(st.frozensets(NATURAL, max_size=5)),
    )
    return Ask(query, draw(SLOTS), draw(st.dictionaries(st.integers(0, 1023), NATURAL, max_size=5)))


HITS = st.lists(st.builds(Hit, NATURAL, NATURAL, NATURAL, FLOAT), max_size=5).map(tuple)
ANSWERS = st.builds(
    Answer, SLOTS, st.dictionaries(st.sampled_from(Refusal), SLOTS, max_size=5), HITS
)


def travelled(kind: Kind, body: object, cut: int) -> Frame:
    """The one frame that comes out when its bytes arrive in pieces of `cut`."""
    data = wire.encode(Frame(kind, 7, 250, body))
    splitter = wire.Splitter()
    pieces = [data[at : at + cut] for at in range(0, len(data), cut)]
    [payload] = [payload for piece in pieces for payload in splitter.feed(piece)]
    frame = wire.decode(payload)
    assert (frame.kind, frame.id, frame.deadline_ms) == (kind, 7, 250)
    return frame


@given(asks(), st.integers(1, 400))
def test_a_question_arrives_as_it_was_asked(ask: Ask, cut: int) -> None:
    arrived = wire.ask(travelled(Kind.SEARCH, wire.ask_body(ask), cut).body)
    np.testing.assert_array_equal(arrived.query.vector, ask.query.vector)
    assert (arrived.slots, arrived.least) == (ask.slots, ask.least)
    assert (arrived.query.workspace, arrived.query.k) == (ask.query.workspace, ask.query.k)
    assert (arrived.query.generation, arrived.query.documents) == (
        ask.query.generation,
        ask.query.documents,
    )


@given(ANSWERS, st.integers(1, 400))
def test_an_answer_arrives_as_it_was_given(answer: Answer, cut: int) -> None:
    assert wire.answer(travelled(Kind.FOUND, wire.answer_body(answer), cut).body) == answer


@given(st.lists(st.binary(max_size=300), max_size=10), st.integers(1, 700))
def test_many_frames_are_told_apart_however_they_are_cut(bodies: list[bytes], cut: int) -> None:
    data = b"".join(wire.encode(Frame(Kind.FOUND, n, 0, body)) for n, body in enumerate(bodies))
    splitter = wire.Splitter()
    payloads = [
        payload for at in range(0, len(data), cut) for payload in splitter.feed(data[at : at + cut])
    ]
    assert [wire.decode(payload).body for payload in payloads] == bodies


@given(st.binary(max_size=400))
def test_foreign_bytes_are_refused_by_name(data: bytes) -> None:
    try:
        frame = wire.decode(data)
        for read in (wire.hello, wire.ask, wire.answer, wire.error):
            with pytest.raises(Invalid):
                read(frame.body)
    except Invalid:
        pass


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.binary() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)


FIELDS = ("generation", "workspace", "k", "slots", "least", "documents", "vector")


@given(asks(), st.sampled_from(FIELDS), JSON)
def test_a_foreign_field_is_refused_or_read(ask: Ask, name: str, value: object) -> None:
    body = wire.ask_body(ask)
    assert set(body) == set(FIELDS)
    with contextlib.suppress(Invalid):
        assert wire.ask(travelled(Kind.SEARCH, body | {name: value}, 1000).body)


@given(st.integers(wire.FRAME_MAX_BYTES + 1, 2**32 - 1))
def test_a_length_above_one_mebibyte_is_refused_before_it_is_buffered(length: int) -> None:
    with pytest.raises(TooLarge, match="1048576"):
        list(wire.Splitter().feed(length.to_bytes(4, "big")))


def test_a_frame_above_one_mebibyte_is_not_sent() -> None:
    with pytest.raises(TooLarge, match="at most 1048576 bytes"):
        wire.encode(Frame(Kind.FOUND, 1, 0, bytes(wire.FRAME_MAX_BYTES)))


def test_another_version_is_refused() -> None:
    data = bytearray(wire.encode(Frame(Kind.FOUND, 1, 0, None))[4:])
    data[1] = 9
    with pytest.raises(Invalid, match="frame version: 9 is not allowed; must be 1"):
        wire.decode(bytes(data))
