"""The `ingest` role: workers that make documents searchable and remove what nobody needs."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Mapping
from typing import Final

from chatbot_core import names
from chatbot_runtime.adapters.embedder import MiniLmEmbedder
from chatbot_runtime.adapters.parsing import ConfinedParser
from chatbot_runtime.adapters.postgres.documents import PostgresDocuments
from chatbot_runtime.adapters.postgres.events import PostgresEventLog
from chatbot_runtime.adapters.postgres.jobs import PostgresJobs
from chatbot_runtime.adapters.postgres.members import PostgresMembers
from chatbot_runtime.adapters.postgres.pool import Database
from chatbot_runtime.background import background
from chatbot_runtime.domain.model import JobKind
from chatbot_runtime.internal_http import serve_internal
from chatbot_runtime.roles.database import judged_database
from chatbot_runtime.roles.stores import Blobs, make_stores, start_stores
from chatbot_runtime.services.health import CorpusWatch
from chatbot_runtime.services.ingest import (
    EraseHandler,
    IngestHandler,
    SweepHandler,
    plan_sweeps,
)
from chatbot_runtime.services.jobs import Handler, Worker
from chatbot_runtime.services.members import Heartbeat
from chatbot_runtime.services.stages import Stages
from chatbot_runtime.services.windows import Windows
from chatbot_runtime.settings import RuntimeSettings

ROLE: Final = names.Role.INGEST
#: Two documents at once: one is read and cut while the other is embedded.
INGEST_WORKERS: Final = 2


async def run(settings: RuntimeSettings) -> None:
    """Work until told to stop; a document in hand is begun again by another worker.

    Raises Invalid where the embedder's files are wrong.
    """
    database = judged_database(settings)
    log, jobs = PostgresEventLog(database), PostgresJobs(database)
    stores, embedder = make_stores(settings, settings.boot.ingest.stores), MiniLmEmbedder()
    reading, clearing = _workers(settings, database, stores, embedder)
    members = PostgresMembers(database)
    watch = CorpusWatch(log, embedder)

    def ready() -> tuple[bool, str]:
        return (False, "draining") if settings.stopping.is_set() else watch.ready()

    heartbeat = Heartbeat(members, settings, ROLE, settings.address, ready)
    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(database.close)
        stack.push_async_callback(heartbeat.leave)
        await stack.enter_async_context(
            serve_internal(settings.boot.ingest.internal_port, ready, host=settings.bind_host)
        )
        await stack.enter_async_context(
            background(
                start_stores(stores),
                *(reading.run(settings.stopping) for _ in range(INGEST_WORKERS)),
                clearing.run(settings.stopping),
                plan_sweeps(jobs, random.random),
                watch.run(),
                heartbeat.run(),
            )
        )
        await settings.stopping.wait()


def _workers(
    settings: RuntimeSettings,
    database: Database,
    stores: Mapping[str, Blobs],
    embedder: MiniLmEmbedder,
) -> tuple[Worker, Worker]:
    """Return the worker that makes documents searchable and the one that removes bytes."""
    documents, jobs = PostgresDocuments(database), PostgresJobs(database)
    ingest = IngestHandler(
        documents=documents,
        log=PostgresEventLog(database),
        stores=stores,
        parser=ConfinedParser(),
        embedder=embedder,
        stages=Stages(settings.clock, Windows(random.random)),
        live=lambda: settings.live,
    )
    clearing: dict[JobKind, Handler] = {
        JobKind.ERASE: EraseHandler(stores),
        JobKind.SWEEP: SweepHandler(documents, stores),
    }
    return (
        Worker(jobs, {JobKind.INGEST: ingest}, random.random),
        Worker(jobs, clearing, random.random),
    )
