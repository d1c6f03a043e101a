"""Every port of the data plane over one world, in memory or in PostgreSQL, and what fills it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from fakes.data import FakeDocuments, FakeEventLog, World
from fakes.jobs import FakeJobs
from fakes.people import FakeAccounts, FakeMembers, FakeSettings
from numpy.typing import NDArray

from chatbot_core.slots import slot_of
from chatbot_runtime import ports
from chatbot_runtime.adapters.postgres.accounts import PostgresAccounts
from chatbot_runtime.adapters.postgres.documents import PostgresDocuments
from chatbot_runtime.adapters.postgres.events import PostgresEventLog
from chatbot_runtime.adapters.postgres.jobs import PostgresJobs
from chatbot_runtime.adapters.postgres.members import PostgresMembers
from chatbot_runtime.adapters.postgres.pool import Database
from chatbot_runtime.adapters.postgres.settings import PostgresSettings
from chatbot_runtime.domain.model import (
    Chunk,
    Document,
    Hit,
    NewDocument,
)


@dataclass(frozen=True, slots=True)
class Plane:
    """All ports of one implementation over one world."""

    documents: ports.Documents
    log: ports.EventLog
    jobs: ports.Jobs
    accounts: ports.Accounts
    members: ports.Members
    settings: ports.Settings


def fake_plane() -> Plane:
    world = World()
    return Plane(
        FakeDocuments(world),
        FakeEventLog(world),
        FakeJobs(world),
        FakeAccounts(),
        FakeMembers(world.clock),
        FakeSettings(),
    )


def postgres_plane(pool: Database) -> Plane:
    return Plane(
        PostgresDocuments(pool),
        PostgresEventLog(pool),
        PostgresJobs(pool),
        PostgresAccounts(pool),
        PostgresMembers(pool),
        PostgresSettings(pool),
    )


def new(name: str, workspace: str = "w") -> NewDocument:
    return NewDocument(
        doc_id=f"id-{workspace}-{name}",
        workspace=workspace,
        name=f"{name}.txt",
        media_type="text/plain",
        size_bytes=10,
        sha256=name.encode().ljust(32, b"."),
        store="main",
        object_id=f"{workspace}/{name}",
        slot=slot_of(f"id-{workspace}-{name}"),
    )


def chunks(count: int, first: int = 0) -> list[Chunk]:
    return [Chunk(n, n * 10, n * 10 + 9, n + 1, f"text {n}") for n in range(first, first + count)]


def vectors(count: int, seed: int = 0) -> NDArray[np.float16]:
    rows = np.random.default_rng(seed).normal(size=(count, 384)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return rows.astype(np.float16)


async def published(plane: Plane, name: str, count: int = 3, workspace: str = "w") -> Document:
    document, _ = await plane.documents.register(new(name, workspace))
    await plane.log.write_chunks(1, document, chunks(count), vectors(count))
    job = await plane.jobs.take(["ingest"], 60)
    assert job is not None
    assert await plane.log.publish(job, 1, document, count)
    return document


async def texts(plane: Plane, workspace: str, *hits: Hit) -> list[str]:
    return [passage.text for passage in await plane.documents.passages(workspace, 1, hits)]
