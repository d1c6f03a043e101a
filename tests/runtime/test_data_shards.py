"""Real PostgreSQL, real shard processes, the real client: the vector tier as one thing."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from chatbot_core.errors import Denied, Invalid, Unavailable
from chatbot_core.retry import Deadline
from chatbot_core.runtime_config import Boot, RuntimeConfig, ShardBoot
from chatbot_core.slots import slot_of
from chatbot_runtime.adapters.postgres.documents import PostgresDocuments
from chatbot_runtime.adapters.postgres.events import PostgresEventLog
from chatbot_runtime.adapters.postgres.jobs import PostgresJobs
from chatbot_runtime.adapters.postgres.members import PostgresMembers
from chatbot_runtime.adapters.postgres.pool import Database
from chatbot_runtime.adapters.shard_client import ShardClient
from chatbot_runtime.adapters.shard_link import ShardLink
from chatbot_runtime.clock import SystemClock
from chatbot_runtime.domain.model import Chunk, Document, NewDocument, Query
from chatbot_runtime.domain.scatter import Ask

TOKEN = "secret-of-this-test"
CLOCK = SystemClock()


def die_with_parent() -> None:
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)


def deadline(wait_s: float = 5.0) -> Deadline:
    return Deadline.after(CLOCK.monotonic_s(), wait_s)


def passages_like(count: int, seed: int) -> NDArray[np.float16]:
    """Unit vectors as an embedder gives them: a few topics, neighbours, a heavy tail."""
    rng = np.random.default_rng(seed)
    topics = np.random.default_rng(1).normal(size=(40, 384))
    rows = topics[rng.integers(0, 40, count)] + rng.normal(size=(count, 384)) * 0.7
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return rows.astype(np.float16)


@dataclass
class Tier:
    """Two shards as processes of their own, and the database they follow."""

    database: Database
    folder: Path
    client: ShardClient
    processes: dict[int, subprocess.Popen[bytes]] = field(default_factory=dict)
    rows: dict[int, tuple[Document, NDArray[np.float16]]] = field(default_factory=dict)

    @property
    def log(self) -> PostgresEventLog:
        return PostgresEventLog(self.database)

    def start(self, shard: int) -> None:
        with (self.folder / f"shard-{shard}.log").open("ab") as output:
            self.processes[shard] = subprocess.Popen(
                [
                    sys.executable,
                    *("-c", "from chatbot_runtime.cli import main; main()", "shard"),
                    *("--config", self.folder / "runtime.json"),
                    *("--secrets", self.folder / "secrets"),
                    *("--index", str(shard)),
                ],
                env=os.environ | {"POD_NAME": f"test-shard-{shard}-0"},
                stdout=output,
                stderr=subprocess.STDOUT,
                preexec_fn=die_with_parent,  # noqa: PLW1509 - no threads hold locks here
            )

    def kill(self, shard: int, number: signal.Signals = signal.SIGKILL) -> None:
        self.processes[shard].send_signal(number)
        self.processes[shard].wait(20)

    async def publish(self, name: str, vectors: NDArray[np.float16], workspace: str) -> Document:
        new = NewDocument(
            doc_id=name,
            workspace=workspace,
            name=name,
            media_type="text/plain",
            size_bytes=1,
            sha256=name.encode().ljust(32, b"."),
            store="main",
            object_id=f"{workspace}/{name}",
            slot=slot_of(name),
        )
        document, _ = await PostgresDocuments(self.database).register(new)
        chunks = [Chunk(n, n, n + 1, None, f"{name} {n}") for n in range(len(vectors))]
        await self.log.write_chunks(1, document, chunks, vectors)
        job = await PostgresJobs(self.database).take(["ingest"], 60)
        assert job is not None
        assert await self.log.publish(job, 1, document, len(vectors))
        self.rows[document.doc_no] = (document, vectors)
        return document

    async def delete(self, document: Document) -> None:
        await PostgresDocuments(self.database).delete(document.workspace, document.doc_id)
        del self.rows[document.doc_no]

    def expected(self, query: Query) -> list[tuple[int, int]]:
        """The best k by brute force over everything that lives."""
        found = [
            (-float(score), doc_no, ord_)
            for doc_no, (document, vectors) in self.rows.items()
            if document.workspace == query.workspace
            and (not query.documents or doc_no in query.documents)
            for ord_, score in enumerate(vectors.astype(np.float32) @ query.vector)
        ]
        return [(doc_no, ord_) for _, doc_no, ord_ in sorted(found)[: query.k]]

    async def answered(self, query: Query) -> list[tuple[int, int]]:
        found = await self.client.search(query, deadline())
        assert found.coverage == 1.0, self.logs()
        return [(hit.doc_no, hit.ord) for hit in found.hits]

    async def level(self) -> None:
        """Wait until every slot is answered for."""
        await until(lambda: self.covered(1.0), self.logs)

    async def covered(self, coverage: float) -> bool:
        query = Query(np.ones(384, np.float32), "w", 1, 1)
        try:
            return (await self.client.search(query, deadline(1.0))).coverage == coverage
        except Unavailable:
            return False

    async def searchable(self, slots: set[int]) -> bool:
        counters = {one.slot: one.seq for one in await self.log.counters(1)}
        return all(
            [await self.client.searchable(slot, counters[slot], deadline()) for slot in slots]
        )

    def logs(self) -> str:
        return "\n".join(path.read_text()[-2000:] for path in self.folder.glob("*.log"))


async def until(
    holds: Callable[[], Awaitable[bool]], why: Callable[[], str], wait_s: float = 30.0
) -> float:
    """Wait until it holds; return how long that took in seconds."""
    began_s = time.monotonic()
    while not await holds():
        assert time.monotonic() - began_s < wait_s, why()
        await asyncio.sleep(0.05)
    return time.monotonic() - began_s


@contextlib.asynccontextmanager
async def running(dsn: str, folder: Path) -> AsyncIterator[Tier]:
    shard = ShardBoot(port=0, internal_port=0)
    config = RuntimeConfig(cluster="test", boot=Boot(shard=shard))
    (folder / "runtime.json").write_text(config.to_json())
    for name, value in (("database/dsn", dsn), ("internal/token", TOKEN)):
        path = folder / "secrets" / name
        path.parent.mkdir(parents=True)
        path.write_text(value + "\n")
    database = Database(lambda _name: dsn)
    client = ShardClient(
        PostgresEventLog(database), PostgresMembers(database), lambda: TOKEN, CLOCK
    )
    tier = Tier(database, folder, client)
    try:
        for number in range(2):
            tier.start(number)
        yield tier
    finally:
        await client.close()
        for process in tier.processes.values():
            process.kill()
            process.wait(10)
        await database.close()


@pytest.fixture
async def tier(dsn: str, tmp_path: Path) -> AsyncIterator[Tier]:
    async with running(dsn, tmp_path) as one:
        yield one


async def fill(tier: Tier) -> list[Document]:
    sizes = np.random.default_rng(0).integers(1, 12, 300)
    return [
        await tier.publish(f"doc-{n}", passages_like(int(size), n), "w" if n % 3 else "v")
        for n, size in enumerate(sizes)
    ]


def queries(count: int, **options: object) -> list[Query]:
    rows = passages_like(count, 999).astype(np.float32)
    return [Query(row, "w" if n % 2 else "v", 10, 1, **options) for n, row in enumerate(rows)]  # type: ignore[arg-type] # options of Query


async def test_three_hundred_documents_through_a_killed_shard_and_deletions(tier: Tier) -> None:
    documents = await fill(tier)
    await tier.level()
    slots = {document.slot for document in documents}
    assert await tier.searchable(slots)

    for query in queries(60):
        assert await tier.answered(query) == tier.expected(query)
    some = frozenset(document.doc_no for document in documents[:20])
    for query in queries(10, documents=some):
        assert await tier.answered(query) == tier.expected(query)

    tier.kill(1)
    owners = (await tier.log.slot_map()).owners
    lost = frozenset(slot for slot in range(1024) if owners[slot] == 1)
    began_s = time.monotonic()
    found = await tier.client.search(queries(1)[0], deadline())
    assert found.missing_slots == lost
    assert found.coverage == 0.5
    assert time.monotonic() - began_s < 2.0
    gone = {doc_no for doc_no, (document, _) in tier.rows.items() if document.slot in lost}
    assert not gone & {hit.doc_no for hit in found.hits}

    for document in documents[::5]:
        await tier.delete(document)
    added = await tier.publish("late", passages_like(5, 12345), "w")
    tier.start(1)
    await until(lambda: tier.covered(1.0), tier.logs)
    await until(lambda: tier.searchable(slots | {added.slot}), tier.logs)
    for query in queries(60):
        assert await tier.answered(query) == tier.expected(query)


async def test_what_is_deleted_never_comes_back_after_the_last_wall(tier: Tier) -> None:
    documents = await fill(tier)
    await tier.level()
    wall = PostgresDocuments(tier.database)
    for document in [one for one in documents if one.workspace == "w"][:40]:
        vector = tier.rows[document.doc_no][1][0].astype(np.float32)
        await tier.delete(document)
        found = await tier.client.search(Query(vector, "w", 10, 1), deadline())
        passed = await wall.passages("w", 1, found.hits)
        assert document.doc_no not in {passage.doc_no for passage in passed}


async def test_a_document_is_searchable_soon_after_it_is_published(tier: Tier) -> None:
    await tier.level()
    waits_s = []
    for n in range(10):
        document = await tier.publish(f"doc-{n}", passages_like(3, n), "w")
        waits_s.append(await until(lambda: tier.searchable({document.slot}), tier.logs))  # noqa: B023 - awaited in this turn
    assert sorted(waits_s)[5] < 0.5


async def test_a_paused_shard_is_missing_and_then_level(tier: Tier) -> None:
    documents = await fill(tier)
    await tier.level()
    tier.processes[0].send_signal(signal.SIGSTOP)
    try:
        found = await tier.client.search(queries(1)[0], deadline(1.0))
        assert found.coverage == 0.5
    finally:
        tier.processes[0].send_signal(signal.SIGCONT)
    await until(lambda: tier.covered(1.0), tier.logs)
    query = queries(1)[0]
    assert await tier.answered(query) == tier.expected(query)
    assert documents


async def test_a_database_that_went_back_in_time_is_believed(tier: Tier) -> None:
    """A restore or fail-over: counters lower than what shards have, same numbers used again."""
    documents = await fill(tier)
    await tier.level()
    await tier.searchable({document.slot for document in documents})
    taken_back = [one for one in documents if one.slot % 2]
    async with tier.database.transaction() as connection:
        for one in taken_back:
            await connection.execute("DELETE FROM doc_event WHERE doc_no = $1", one.doc_no)
            del tier.rows[one.doc_no]
        await connection.execute("UPDATE slot_seq SET seq = 0, digest = 0 WHERE slot % 2 = 1")
    query = queries(1)[0]

    async def same() -> bool:
        found = await tier.client.search(query, deadline())
        hits = [(hit.doc_no, hit.ord) for hit in found.hits]
        return found.coverage == 1.0 and hits == tier.expected(query)

    await until(same, tier.logs)


async def test_a_stranger_and_a_wrong_question_are_told_so(tier: Tier) -> None:
    await tier.level()
    [row, _] = await PostgresMembers(tier.database).live(6)
    stranger = ShardLink(row.address, lambda: "guess", CLOCK)
    query = Query(np.ones(384, np.float32), "w", 1, 1)
    with pytest.raises(Denied, match="not this cluster's"):
        await stranger.ask(Ask(query, frozenset({0})), deadline())
    with pytest.raises(Invalid, match="384 dimensions"):
        await tier.client.search(Query(np.ones(3, np.float32), "w", 1, 1), deadline())
    assert (await tier.client.search(Query(query.vector, "w", 1, 2), deadline(0.5))).coverage == 0.0


async def test_a_stopped_shard_leaves_cleanly_and_tells_what_it_ran(tier: Tier) -> None:
    await tier.level()

    async def both_ready() -> bool:
        rows = await PostgresMembers(tier.database).live(6)
        return [(row.name, row.shard, row.ready) for row in rows] == [
            ("test-shard-0-0", 0, True),
            ("test-shard-1-0", 1, True),
        ]

    await until(both_ready, tier.logs)
    [row, _] = await PostgresMembers(tier.database).live(6)
    assert row.report == {"slots": 512, "loaded": 512}
    assert row.config_hash.startswith("v1:")
    tier.kill(0, signal.SIGTERM)
    assert tier.processes[0].returncode == 0, tier.logs()
    assert [one.name for one in await PostgresMembers(tier.database).live(6)] == ["test-shard-1-0"]


async def test_shards_wait_for_the_schema(postgres: object, tmp_path: Path) -> None:
    name = f"bare{os.getpid()}"
    await postgres.statement(f"CREATE DATABASE {name}")  # type: ignore[attr-defined] # conftest's Server
    try:
        async with running(postgres.dsn(name), tmp_path) as tier:  # type: ignore[attr-defined] # as above

            async def waits() -> bool:
                return "not migrated" in tier.logs()

            await until(waits, tier.logs)
            for line in filter(None, tier.logs().splitlines()):
                assert json.loads(line)["level"] != "error", line
            with pytest.raises(Unavailable, match="not migrated"):
                await tier.client.search(queries(1)[0], deadline(0.5))
    finally:
        await postgres.statement(f"DROP DATABASE {name} WITH (FORCE)")  # type: ignore[attr-defined] # as above


async def test_shards_leave_a_schema_alone_that_is_too_new_for_them(
    database: Database, tmp_path: Path
) -> None:
    await database.execute(
        "UPDATE setting SET value = $1::jsonb WHERE key = 'schema_version'",
        '{"version": 2, "works_from": 2}',
    )
    async with running(database._read_secret("database/dsn"), tmp_path) as tier:

        async def refuses() -> bool:
            return "schema version 2 works from 2 on, this image has 1" in tier.logs()

        await until(refuses, tier.logs)
        assert await PostgresMembers(database).live(6) == ()
