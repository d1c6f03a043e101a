"""The outside worlds as Protocols; adapters implement them, services know only these.

Every call may raise `Unavailable` (the world did not answer) besides what its docstring names.
Each Protocol has a fake in `tests/fakes` that passes the same contract test as the real adapter.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

from chatbot_core.retry import Deadline
from chatbot_core.runtime_config import ModelStatus, RetrievalStatus
from chatbot_runtime.domain.model import (
    AnswerEnd,
    Chunk,
    Document,
    DocumentState,
    Found,
    Generation,
    GenerationOptions,
    Hit,
    Job,
    MemberRow,
    Message,
    NewDocument,
    Page,
    ParsedText,
    Passage,
    PulledDocument,
    PullProgress,
    Query,
    ServedModel,
    SlotCounter,
    SlotMap,
    Token,
    User,
)

if TYPE_CHECKING:  # numpy takes 0.2 s to import; processes without vectors do without
    import numpy as np
    from numpy.typing import NDArray


class Clock(Protocol):
    """Time: `monotonic_s` for durations and deadlines, `unix_s` for what is stored."""

    def monotonic_s(self) -> float:
        """Return seconds that only move forward."""
        ...

    def unix_s(self) -> float:
        """Return seconds since 1970."""
        ...


class Documents(Protocol):
    """Documents and their passages, always inside one workspace."""

    async def register(self, new: NewDocument) -> tuple[Document, bool]:
        """Insert row and ingest job in one transaction.

        The same bytes in the workspace are the same document: then the existing row and False;
        one that has failed is queued again. The same `upload_key` in the workspace is the same
        upload, for a day. Raises Invalid where it came with other bytes, NotFound where its
        document is deleted.
        """
        ...

    async def get(self, workspace: str, doc_id: str) -> Document:
        """Return a document that is not deleted. Raises NotFound."""
        ...

    async def by_no(self, doc_no: int) -> Document | None:
        """Return a document by its inner number for workers, None once deleted."""
        ...

    async def page(
        self, workspace: str, cursor: str, limit: int, text: str, state: DocumentState | None
    ) -> Page:
        """Return a page, newest first; `text` matches names. Raises Invalid for a bad cursor."""
        ...

    async def numbers(self, workspace: str, doc_ids: Sequence[str]) -> frozenset[int]:
        """Return the inner numbers of live documents. Raises NotFound if one is not there."""
        ...

    async def delete(self, workspace: str, doc_id: str) -> None:
        """Write the Dead event and the erase job in one transaction. Raises NotFound."""
        ...

    async def passages(
        self, workspace: str, generation: int, hits: Sequence[Hit]
    ) -> tuple[Passage, ...]:
        """Return the hits' texts that pass the last wall, in the order of the hits.

        One statement joins `doc_event` on workspace, state, version and generation.
        """
        ...

    async def set_state(self, doc_no: int, ver: int, state: DocumentState, error: str) -> None:
        """Record a worker's progress with a document version; no effect on another version."""
        ...

    async def unnamed(self, store: str, object_ids: Sequence[str]) -> tuple[str, ...]:
        """Return those objects of a store that no document names and no erase job waits for."""
        ...

    async def counts(self) -> RetrievalStatus:
        """Return the corpus as counted, over all workspaces but the self-test's."""
        ...

    async def stored(self) -> dict[str, int]:
        """Return by store how many documents it holds and how many objects wait to be erased.

        The self-test's are left out: it makes them itself.
        """
        ...


class EventLog(Protocol):
    """One event row per document and generation; slot counters order them."""

    async def generation(self) -> Generation:
        """Return the generation that reads use. Raises Unavailable before the first migration."""
        ...

    async def slot_map(self) -> SlotMap:
        """Return who owns which slot."""
        ...

    async def write_chunks(
        self,
        generation: int,
        document: Document,
        chunks: Sequence[Chunk],
        vectors: NDArray[np.float16],
    ) -> None:
        """Write a batch of chunk rows in a transaction of its own; they stay invisible."""
        ...

    async def publish(self, job: Job, generation: int, document: Document, chunks: int) -> bool:
        """Make the document version visible: the last transaction of an ingest job.

        Checks the job's token and the wanted version; False when either has moved on.
        """
        ...

    async def counters(self, generation: int) -> tuple[SlotCounter, ...]:
        """Return all slots' counters."""
        ...

    async def pull(
        self, generation: int, after: Mapping[int, int]
    ) -> tuple[Mapping[int, SlotCounter], tuple[PulledDocument, ...]]:
        """Return, in one repeatable-read snapshot, counters and events after slot -> seq."""
        ...


class VectorIndex(Protocol):
    """The rows of one shard in memory; every call is synchronous and leaves it consistent."""

    def apply(self, document: PulledDocument) -> int:
        """Apply one event whole; return what it changes in the slot's digest.

        Raises Invalid for vectors that are not finite, are zero or have another dimension.
        """
        ...

    def drop_slot(self, slot: int) -> None:
        """Forget every document of a slot."""
        ...

    def search(self, query: Query, slots: frozenset[int]) -> tuple[Hit, ...]:
        """Return the best k among live rows of these slots, the query's workspace and documents.

        Exact: filters apply before the best are chosen. Ordered by score descending, doc_no, ord.
        Raises Invalid for a vector that is not finite, is zero or has another dimension.
        """
        ...


class Jobs(Protocol):
    """Background work under leases; the only "exactly one of us does it"."""

    async def enqueue(
        self, kind: str, key: str, workspace: str, payload: Mapping[str, object], run_after_s: float
    ) -> bool:
        """Insert a job unless an unfinished one of that kind and key exists; say if inserted."""
        ...

    async def take(self, kinds: Sequence[str], lease_s: float) -> Job | None:
        """Take the next due job under a new token, or None."""
        ...

    async def renew(self, job: Job, lease_s: float, progress: str) -> bool:
        """Extend the lease; False when another worker holds the job now."""
        ...

    async def finish(self, job: Job) -> bool:
        """Remove a done job; False when the token is no longer ours."""
        ...

    async def fail(self, job: Job, error: str, retry_after_s: float | None) -> bool:
        """Record a failure and run again later, or never where `retry_after_s` is None."""
        ...

    async def give_back(self, job: Job, why: str, wait_s: float) -> bool:
        """Let the job run again in `wait_s` seconds; this try does not count as an attempt."""
        ...


class Accounts(Protocol):
    """Users and sessions; a session is stored as the SHA-256 of its token."""

    async def user(self, username: str) -> User:
        """Return a user by name. Raises NotFound."""
        ...

    async def put_user(self, user: User) -> None:
        """Insert a user. Raises Invalid where the name is taken."""
        ...

    async def ensure_admin(self, user: User) -> None:
        """Insert, rename or update the first admin, and end its sessions.

        An edit of its Secret rotates name and password.
        """
        ...

    async def users(self, workspace: str) -> tuple[User, ...]:
        """Return the users of a workspace by name."""
        ...

    async def open_session(self, token_hash: bytes, user_id: str, expires_s: float) -> None:
        """Store a session."""
        ...

    async def session_user(self, token_hash: bytes, now_s: float) -> User:
        """Return the user of a session that has not expired. Raises Unauthenticated."""
        ...

    async def close_session(self, token_hash: bytes) -> None:
        """Remove a session; no effect where it is gone."""
        ...


class Members(Protocol):
    """Heartbeats of every process."""

    async def beat(self, row: MemberRow) -> None:
        """Insert or update this process's row; the database's clock stamps it."""
        ...

    async def leave(self, role: str, name: str) -> None:
        """Remove this process's row at a clean end."""
        ...

    async def live(self, max_age_s: float) -> tuple[MemberRow, ...]:
        """Return the rows younger than `max_age_s`, by role and name."""
        ...


class Settings(Protocol):
    """Small persistent facts (`self_test`, `schema_version`), one JSON value a key."""

    async def read(self, key: str) -> dict[str, object] | None:
        """Return a value, or None."""
        ...

    async def write(self, key: str, value: Mapping[str, object]) -> None:
        """Insert or replace a value."""
        ...


class Embedder(Protocol):
    """Text to unit vectors."""

    @property
    def fingerprint(self) -> str:
        """Return what identifies the vectors: model, weights' hash, pooling, max tokens."""
        ...

    @property
    def dimension(self) -> int:
        """Return the length of a vector."""
        ...

    async def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return unit vectors, shape (len(texts), dimension). Raises Busy when overloaded."""
        ...


class Shards(Protocol):
    """The vector tier as one thing: a scatter over exactly the 1,024 slots."""

    async def search(self, query: Query, deadline: Deadline) -> Found:
        """Return the best k over all slots; what no shard answered for is in `missing_slots`.

        Raises Busy where shards have too much to do.
        """
        ...

    async def searchable(self, slot: int, seq: int, deadline: Deadline) -> bool:
        """Say whether the slot's owner has applied the sequence."""
        ...


class LanguageModel(Protocol):
    """A chat model behind a bounded queue."""

    def stream(
        self, messages: Sequence[Message], options: GenerationOptions, deadline: Deadline
    ) -> AsyncIterator[Token | AnswerEnd]:
        """Yield tokens, then one AnswerEnd. Closing the iterator stops the model.

        Raises Busy when the queue is full, Unavailable when no model answers.
        """
        ...

    async def status(self) -> ModelStatus:
        """Return the model as held by the inference tier."""
        ...


class ModelServer(Protocol):
    """One Ollama, as the inference proxy beside it sees it."""

    async def find(self, model: str) -> ServedModel | None:
        """Return the model as it lies on its disk, None where it does not."""
        ...

    async def is_loaded(self, model: str) -> bool:
        """Say whether the model is in memory now."""
        ...

    def pull(self, model: str) -> AsyncGenerator[PullProgress, None]:
        """Download a model, yielding progress until it is verified and usable."""
        ...

    async def load(self, model: str, context_tokens: int, keep_loaded: bool) -> None:
        """Bring the model into memory. Raises NotFound where it is not on the disk."""
        ...

    def chat(
        self, messages: Sequence[Message], options: GenerationOptions, keep_loaded: bool | None
    ) -> AsyncGenerator[Token | AnswerEnd, None]:
        """Yield tokens, then one AnswerEnd. Closing the iterator closes the connection.

        `keep_loaded` None leaves it to the server how long the model stays in memory.
        Raises Unavailable also in the middle of an answer.
        """
        ...


class BlobStore(Protocol):
    """Documents' bytes under random ids."""

    @property
    def name(self) -> str:
        """Return the store's name in the spec."""
        ...

    async def put(self, object_id: str, content: AsyncIterator[bytes], media_type: str) -> None:
        """Store all bytes or nothing."""
        ...

    def get(self, object_id: str) -> AsyncIterator[bytes]:
        """Yield the bytes. Raises NotFound."""
        ...

    async def delete(self, object_id: str) -> None:
        """Remove an object; no effect where it is gone."""
        ...

    async def older_than(self, age_s: float) -> tuple[str, ...]:
        """Return ids of objects older than that, for the sweep."""
        ...


class Parser(Protocol):
    """A document's bytes to text, in a confined process of its own."""

    async def parse(self, content: bytes) -> ParsedText:
        """Return the text; the format is told by the content, never by a name.

        Raises Invalid where the document itself is at fault, with a reason for its owner, and
        Bug where the confinement cannot be installed.
        """
        ...


ReadSecret = Callable[[str], str]
