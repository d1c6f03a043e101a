"""Frames between API and shards: 4-byte big-endian length, then MessagePack.

A frame is `[version, type, id, deadline_ms, body]`, at most 1 MiB. The first frame of a connection
is `HELLO` with the token and the versions that the client speaks. Slots travel as a bitmap of 128
bytes, vectors as raw little-endian float32, hits as four packed arrays. MessagePack:
https://github.com/msgpack/msgpack/blob/master/spec.md
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum
from functools import lru_cache
from typing import Any, Final, TypeVar

import msgpack
import numpy as np

from chatbot_core.errors import Busy, ChatbotError, Denied, Invalid, TooLarge
from chatbot_core.slots import SLOT_COUNT, from_bitmap, to_bitmap
from chatbot_runtime.domain.model import Hit, Query
from chatbot_runtime.domain.scatter import Answer, Ask, Refusal

VERSION: Final = 1
FRAME_MAX_BYTES: Final = 1 << 20
K_MAX: Final = 10_000
_LENGTH: Final = struct.Struct(">I")
_INT64_MAX: Final = (1 << 63) - 1

T = TypeVar("T")


class Kind(IntEnum):
    """What a frame is."""

    HELLO = 1
    WELCOME = 2
    SEARCH = 3
    FOUND = 4
    FAILED = 5  # body {"error": "invalid" | "denied" | "busy" | "bug", "message"}


@dataclass(frozen=True, slots=True)
class Frame:
    """One message; `deadline_ms` is the time left at sending, 0 for answers."""

    kind: Kind
    id: int
    deadline_ms: int
    body: object


@dataclass(frozen=True, slots=True)
class Hello:
    """The first frame: proves the cluster and offers protocol versions."""

    token: str
    versions: tuple[int, ...] = (VERSION,)


def encode(frame: Frame) -> bytes:
    """Return a frame with its length. Raises TooLarge above 1 MiB."""
    payload: bytes = msgpack.packb(
        [VERSION, int(frame.kind), frame.id, frame.deadline_ms, frame.body], use_bin_type=True
    )
    if len(payload) > FRAME_MAX_BYTES:
        raise TooLarge("frame", len(payload), f"at most {FRAME_MAX_BYTES} bytes")
    return _LENGTH.pack(len(payload)) + payload


def decode(payload: bytes) -> Frame:
    """Return the frame in a payload without its length. Raises Invalid."""
    try:
        parts = msgpack.unpackb(payload, raw=False, strict_map_key=False, use_list=True)
    # The unpacker raises many classes for foreign bytes, among them its own StackError.
    except (ValueError, TypeError, msgpack.UnpackException, RecursionError) as error:
        raise Invalid("frame", payload[:16], "MessagePack") from error
    if not isinstance(parts, list) or len(parts) != 5:  # noqa: PLR2004 - the five parts above
        raise Invalid("frame", type(parts).__name__, "[version, type, id, deadline_ms, body]")
    version, kind, id_, deadline_ms, body = parts
    if version != VERSION:
        raise Invalid("frame version", version, str(VERSION))
    if kind not in set(Kind):
        raise Invalid("frame type", kind, "a known one")
    return Frame(Kind(kind), _natural("id", id_), _natural("deadline_ms", deadline_ms), body)


class Splitter:
    """Cuts a byte stream into payloads."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterable[bytes]:
        """Yield the payloads that `data` completes. Raises TooLarge before buffering a big one."""
        self._buffer += data
        start = 0
        try:
            while len(self._buffer) - start >= _LENGTH.size:
                (length,) = _LENGTH.unpack_from(self._buffer, start)
                if length > FRAME_MAX_BYTES:
                    raise TooLarge("frame", length, f"at most {FRAME_MAX_BYTES} bytes")
                end = start + _LENGTH.size + length
                if len(self._buffer) < end:
                    break
                payload = bytes(self._buffer[start + _LENGTH.size : end])
                start = end
                yield payload
        finally:
            del self._buffer[:start]


def hello_body(hello: Hello) -> dict[str, object]:
    """Return the body of a HELLO."""
    return {"token": hello.token, "versions": list(hello.versions)}


def hello(body: object) -> Hello:
    """Return what a HELLO says. Raises Invalid."""
    fields = _fields(body, "token", "versions")
    versions = tuple(_natural("versions", one) for one in _typed(list, fields["versions"]))
    return Hello(_typed(str, fields["token"]), versions)


def ask_body(ask: Ask) -> dict[str, object]:
    """Return the body of a SEARCH; documents are sorted, so that equal questions are equal."""
    query = ask.query
    return {
        "generation": query.generation,
        "workspace": query.workspace,
        "k": query.k,
        "slots": _bitmap(ask.slots),
        "least": dict(ask.least),
        "documents": np.array(sorted(query.documents), dtype="<i8").tobytes(),
        "vector": np.ascontiguousarray(query.vector, dtype="<f4").tobytes(),
    }


def ask(body: object) -> Ask:
    """Return the question of a SEARCH. Raises Invalid."""
    fields = _fields(body, "generation", "workspace", "k", "slots", "least", "documents", "vector")
    least = {
        _natural("slot", slot, SLOT_COUNT - 1): _natural("least", seq)
        for slot, seq in _typed(dict, fields["least"]).items()
    }
    query = Query(
        vector=_array(fields["vector"], "<f4"),
        workspace=_typed(str, fields["workspace"]),
        k=_natural("k", fields["k"], K_MAX),
        generation=_natural("generation", fields["generation"]),
        documents=frozenset(_array(fields["documents"], "<i8").tolist()),
    )
    return Ask(query, _slots(_typed(bytes, fields["slots"])), least)


def answer_body(answer: Answer) -> dict[str, object]:
    """Return the body of a FOUND."""
    hits = answer.hits
    return {
        "answered": _bitmap(answer.answered),
        "refused": {reason.value: _bitmap(slots) for reason, slots in answer.refused.items()},
        "doc_no": np.array([hit.doc_no for hit in hits], dtype="<i8").tobytes(),
        "ver": np.array([hit.ver for hit in hits], dtype="<i8").tobytes(),
        "ord": np.array([hit.ord for hit in hits], dtype="<i8").tobytes(),
        "score": np.array([hit.score for hit in hits], dtype="<f4").tobytes(),
    }


def answer(body: object) -> Answer:
    """Return what a FOUND says. Raises Invalid."""
    fields = _fields(body, "answered", "refused", "doc_no", "ver", "ord", "score")
    columns = [_array(fields[name], "<i8").tolist() for name in ("doc_no", "ver", "ord")]
    columns.append(_array(fields["score"], "<f4").tolist())
    if len({len(column) for column in columns}) != 1:
        raise Invalid("hits", [len(column) for column in columns], "four columns of one length")
    refused = {
        _refusal(reason): _slots(_typed(bytes, slots))
        for reason, slots in _typed(dict, fields["refused"]).items()
    }
    hits = tuple(Hit(*row) for row in zip(*columns, strict=True))
    return Answer(_slots(_typed(bytes, fields["answered"])), refused, hits)


def error_body(error: ChatbotError) -> dict[str, object]:
    """Return the body of a FAILED."""
    kinds = {"invalid": Invalid, "denied": Denied, "busy": Busy}
    kind = next((name for name, one in kinds.items() if isinstance(error, one)), "bug")
    return {"error": kind, "message": str(error)[:500]}


def error(body: object) -> tuple[str, str]:
    """Return kind and message of a FAILED. Raises Invalid."""
    fields = _fields(body, "error", "message")
    return _typed(str, fields["error"]), _typed(str, fields["message"])


# The same few sets of slots travel in every message: each is turned once.
_bitmap = lru_cache(maxsize=256)(to_bitmap)
_slots = lru_cache(maxsize=256)(from_bitmap)


def _refusal(reason: object) -> Refusal:
    if reason not in set(Refusal):
        raise Invalid("refused", reason, "a known reason")
    return Refusal(str(reason))


def _fields(body: object, *wanted: str) -> dict[str, Any]:
    fields = _typed(dict, body)
    missing = [name for name in wanted if name not in fields]
    if missing:
        raise Invalid("body", missing[0], "present")
    return fields


def _typed(kind: type[T], value: object) -> T:
    if not isinstance(value, kind):
        raise Invalid("body", type(value).__name__, kind.__name__)
    return value


def _natural(name: str, value: object, largest: int = _INT64_MAX) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= largest:
        raise Invalid(name, value, f"an integer from 0 to {largest}")
    return value


def _array(value: object, dtype: str) -> np.ndarray[Any, Any]:
    raw = _typed(bytes, value)
    if len(raw) % np.dtype(dtype).itemsize:
        raise Invalid("array", len(raw), f"whole {dtype} values")
    return np.frombuffer(raw, dtype=dtype)
