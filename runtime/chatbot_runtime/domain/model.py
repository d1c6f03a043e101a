"""The values that flow through the application; every stored one carries its workspace."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # numpy takes 0.2 s to import; processes without vectors do without
    import numpy as np
    from numpy.typing import NDArray


class DocumentState(StrEnum):
    """Where a document is on its way to being searchable."""

    QUEUED = "Queued"
    PROCESSING = "Processing"
    SEARCHABLE = "Searchable"
    FAILED = "Failed"


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks: set from the session, never from the request's own words."""

    user_id: str
    username: str
    workspace: str
    admin: bool


@dataclass(frozen=True, slots=True)
class NewDocument:
    """A document whose bytes are stored already, about to get its row.

    `upload_key` is what the client named this upload, empty where it did not.
    """

    doc_id: str
    workspace: str
    name: str
    media_type: str
    size_bytes: int
    sha256: bytes
    store: str
    object_id: str
    slot: int
    upload_key: str = ""


@dataclass(frozen=True, slots=True)
class Document:
    """A document's row. `doc_no` stays inside the process; people see `doc_id`."""

    doc_no: int
    doc_id: str
    workspace: str
    name: str
    media_type: str
    size_bytes: int
    sha256: bytes
    store: str
    object_id: str
    slot: int
    ver: int
    state: DocumentState
    error: str
    chunks: int
    created_at_s: float


@dataclass(frozen=True, slots=True)
class Page:
    """One page of a list; `cursor` is opaque, empty at the end."""

    items: tuple[Document, ...]
    cursor: str


@dataclass(frozen=True, slots=True)
class ParsedText:
    """A document's text; `page_starts` are the offsets where pages begin, empty without pages."""

    text: str
    page_starts: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Chunk:
    """A piece of a document's text; offsets count characters of the extracted text."""

    ord: int
    start: int
    end: int
    page: int | None
    text: str


@dataclass(frozen=True, slots=True)
class Hit:
    """A chunk that a shard found: similarity is the inner product of unit vectors."""

    doc_no: int
    ver: int
    ord: int
    score: float


@dataclass(frozen=True, slots=True)
class Passage:
    """A chunk that passed the last wall: live, of this workspace, of the current version."""

    doc_no: int
    doc_id: str
    ver: int
    ord: int
    name: str
    page: int | None
    start: int
    end: int
    text: str
    score: float


@dataclass(frozen=True, slots=True)
class Citation:
    """A passage the answer points to as [n], n counted from 1."""

    n: int
    document_id: str
    name: str
    page: int | None
    start: int
    end: int
    text: str


@dataclass(frozen=True, slots=True)
class Found:
    """What a scatter over all slots found, best first, and what it could not ask."""

    hits: tuple[Hit, ...]
    missing_slots: frozenset[int]

    @property
    def coverage(self) -> float:
        """Return the share of slots that were searched, 0.0 to 1.0."""
        return 1.0 - len(self.missing_slots) / 1024


@dataclass(frozen=True, slots=True)
class Query:
    """One vector question; an empty `documents` admits every document of the workspace."""

    vector: NDArray[np.float32]
    workspace: str
    k: int
    generation: int
    documents: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True)
class Generation:
    """What ties vectors to the embedder that made them; two never meet in one result."""

    gen: int
    fingerprint: str
    dimension: int


@dataclass(frozen=True, slots=True)
class SlotMap:
    """Who owns each of the 1,024 slots; `next` is empty while nothing moves."""

    epoch: int
    owners: tuple[int, ...]
    next: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class SlotCounter:
    """A slot's sequence and the XOR over its live documents' 64-bit hashes (signed, as stored)."""

    slot: int
    seq: int
    digest: int


@dataclass(frozen=True, slots=True)
class PulledDocument:
    """One event of the log with the chunks that belong to it; a dead one has none."""

    doc_no: int
    workspace: str
    slot: int
    seq: int
    ver: int
    live: bool
    ords: NDArray[np.int32]
    vectors: NDArray[np.float16]


class JobKind(StrEnum):
    """The kinds of background work. Keys: `ingest` a doc_no, `erase` an object_id.

    Payloads: `ingest` {doc_no, ver}, `erase` {store, object_id}.
    """

    INGEST = "ingest"
    ERASE = "erase"
    SWEEP = "sweep"
    SELF_TEST = "self-test"


@dataclass(frozen=True, slots=True)
class Job:
    """A unit of background work, held under a lease by `token`."""

    id: int
    kind: str
    key: str
    workspace: str
    attempts: int
    token: str
    payload: dict[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class User:
    """An account; the hash is argon2id in PHC format."""

    user_id: str
    username: str
    workspace: str
    admin: bool
    password_hash: str


@dataclass(frozen=True, slots=True)
class MemberRow:
    """A heartbeat: one running process, the routers' address book."""

    role: str
    name: str
    address: str
    started_s: float
    version: str
    config_hash: str
    epoch: int
    ready: bool
    reason: str = ""
    shard: int | None = None
    report: dict[str, object] = field(default_factory=dict)
    age_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Message:
    """One message of a chat prompt."""

    role: str
    content: str


@dataclass(frozen=True, slots=True)
class Token:
    """A piece of a running answer; `n` counts from 1."""

    n: int
    text: str


@dataclass(frozen=True, slots=True)
class AnswerEnd:
    """How an answer ended, with the model's own counts and times."""

    reason: str
    prompt_tokens: int
    answer_tokens: int
    first_token_s: float
    total_s: float
    model: str


@dataclass(frozen=True, slots=True)
class GenerationOptions:
    """What the model is asked with."""

    model: str
    max_output_tokens: int
    temperature_percent: int
    seed: int
    context_tokens: int


@dataclass(frozen=True, slots=True)
class ServedModel:
    """A model as a model server holds it on its disk."""

    name: str
    digest: str
    size_bytes: int


@dataclass(frozen=True, slots=True)
class PullProgress:
    """A download that runs: bytes of all layers known so far."""

    downloaded_bytes: int
    total_bytes: int
