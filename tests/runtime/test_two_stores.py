"""A folder and a bucket side by side: where documents are put, found again, and erased."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from fakes.gateway import KEYS
from fakes.shards import FakeShards

from chatbot_core import names
from chatbot_core.errors import Unavailable
from chatbot_core.runtime_config import (
    Boot,
    FolderStore,
    IngestBoot,
    Live,
    RuntimeConfig,
    S3Store,
    Store,
)
from chatbot_runtime.adapters.postgres.documents import PostgresDocuments
from chatbot_runtime.adapters.postgres.events import PostgresEventLog
from chatbot_runtime.adapters.postgres.jobs import PostgresJobs
from chatbot_runtime.adapters.postgres.pool import Database
from chatbot_runtime.clock import SystemClock
from chatbot_runtime.domain.model import Document, JobKind
from chatbot_runtime.roles.stores import Blobs, make_stores, start_stores
from chatbot_runtime.services.documents import DocumentService, Reach
from chatbot_runtime.services.ingest import EraseHandler
from chatbot_runtime.settings import RuntimeSettings

CLOCK = SystemClock()


def bucket(url: str, name: str, bucket_name: str) -> S3Store:
    return S3Store(
        name=name,
        bucket=bucket_name,
        endpoint=url,
        prefix=f"{name}/",
        path_style=True,
        create_bucket=True,
        folder=f"{names.DOCUMENTS_FOLDER}/{name}",
    )


async def stores_of(folder: Path, *stores: Store) -> dict[str, Blobs]:
    """Make the stores as a process makes them: from its config and its Secret files."""
    for store in stores:
        if isinstance(store, S3Store):
            for key, value in zip(
                (names.KEY_ACCESS_KEY_ID, names.KEY_SECRET_ACCESS_KEY), KEYS.values(), strict=True
            ):
                path = folder / "secrets" / store.folder / key
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(value)
    file = folder / "runtime.json"
    boot = Boot(ingest=IngestBoot(stores=stores))
    file.write_text(RuntimeConfig(cluster="docs", boot=boot).to_json())
    settings = RuntimeSettings(file, folder / "secrets", {}, CLOCK)
    made = make_stores(settings, settings.boot.ingest.stores)
    await start_stores(made)
    return made


def service(database: Database, stores: dict[str, Blobs]) -> DocumentService:
    documents, log = PostgresDocuments(database), PostgresEventLog(database)
    numbers = itertools.count()
    return DocumentService(
        documents=documents,
        stores=stores,
        reach=Reach(log, FakeShards(log), CLOCK),
        clock=CLOCK,
        live=Live,
        random_id=lambda: f"{next(numbers):08}",
    )


async def text(number: int) -> AsyncIterator[bytes]:
    yield f"Document {number}.".encode()


async def read(documents: DocumentService, document: Document) -> bytes:
    _, blocks = await documents.content("w", document.doc_id)
    return b"".join([block async for block in blocks])


@pytest.fixture
def folder(tmp_path: Path) -> FolderStore:
    return FolderStore(name="main", path=str(tmp_path / "documents"))


async def test_documents_are_spread_found_again_and_erased_where_they_are(
    database: Database, gateway: str, folder: FolderStore, tmp_path: Path
) -> None:
    more, third = bucket(gateway, "more", "two-stores"), bucket(gateway, "third", "two-stores")
    before = await stores_of(tmp_path, folder, more)
    first = service(database, before)
    put = [(await first.upload("w", f"{n}.txt", text(n)))[0] for n in range(24)]
    spread = Counter(document.store for document in put)
    assert spread.keys() == {"main", "more"}
    assert await first.documents.stored() == spread
    for name, store in before.items():
        held = {document.object_id for document in put if document.store == name}
        assert set(await store.older_than(-60)) == held

    after = await stores_of(tmp_path, third, folder, more)
    grown = service(database, after)
    assert [await read(grown, document) for document in put] == [
        f"Document {n}.".encode() for n in range(24)
    ], "a new store moves nothing"

    for document in put[:12]:
        await grown.delete("w", document.doc_id)
    erase, jobs = EraseHandler(after), PostgresJobs(database)
    while job := await jobs.take([JobKind.ERASE], 60):
        await erase.run(job, lambda _: None)
        assert await jobs.finish(job)
    for name, store in after.items():
        held = {document.object_id for document in put[12:] if document.store == name}
        assert set(await store.older_than(-60)) == held
    assert await grown.documents.stored() == Counter(document.store for document in put[12:])


async def test_a_document_whose_store_is_not_listed_waits_for_it(
    database: Database, gateway: str, folder: FolderStore, tmp_path: Path
) -> None:
    more = bucket(gateway, "more", "gone-store")
    both = service(database, await stores_of(tmp_path, folder, more))
    put = [(await both.upload("w", f"{n}.txt", text(n)))[0] for n in range(8)]
    lost = next(document for document in put if document.store == "more")
    one = service(database, await stores_of(tmp_path, folder))
    with pytest.raises(Unavailable, match="document store more"):
        await read(one, lost)
    again = service(database, await stores_of(tmp_path, folder, more))
    assert await read(again, lost) == f"Document {put.index(lost)}.".encode()
