"""What the data plane promises, of PostgreSQL and of the fakes alike."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import numpy as np
import pytest
from fakes.planes import Plane, chunks, new, published, texts, vectors

from chatbot_core.errors import Invalid, NotFound, Unavailable
from chatbot_core.runtime_config import RetrievalStatus
from chatbot_core.slots import initial_owners
from chatbot_runtime.domain.digest import document_hash
from chatbot_runtime.domain.model import (
    Chunk,
    DocumentState,
    Generation,
    Hit,
    JobKind,
    Passage,
    SlotCounter,
    SlotMap,
)


async def test_the_same_bytes_in_a_workspace_are_the_same_document(plane: Plane) -> None:
    first, inserted = await plane.documents.register(new("a"))
    again, inserted_again = await plane.documents.register(
        replace(new("a"), doc_id="other", object_id="w/other")
    )
    elsewhere, inserted_elsewhere = await plane.documents.register(new("a", "v"))
    assert (again, inserted, inserted_again) == (first, True, False)
    assert inserted_elsewhere
    assert elsewhere.doc_no != first.doc_no
    job = await plane.jobs.take(["ingest"], 60)
    assert job is not None
    assert (job.key, job.workspace, job.payload, job.attempts) == (
        str(first.doc_no),
        "w",
        {"doc_no": first.doc_no, "ver": 1},
        1,
    )


async def test_a_failed_document_uploaded_again_is_tried_again(plane: Plane) -> None:
    failed, _ = await plane.documents.register(new("a"))
    job = await plane.jobs.take(["ingest"], 60)
    assert job is not None
    await plane.documents.set_state(failed.doc_no, 1, DocumentState.FAILED, "cannot be read")

    again, inserted = await plane.documents.register(new("a"))
    assert await plane.jobs.fail(job, "its worker gives up only now", None) is False
    retried = await plane.jobs.take(["ingest"], 60)

    assert (again, inserted) == (failed, False)
    assert retried is not None
    assert (retried.payload, retried.attempts) == ({"doc_no": failed.doc_no, "ver": 1}, 1)
    assert await plane.jobs.take(["ingest"], 60) is None


async def test_an_upload_key_names_one_upload_of_a_workspace(plane: Plane) -> None:
    keyed = replace(new("a"), upload_key="k1")
    first, created = await plane.documents.register(keyed)
    again = await plane.documents.register(replace(keyed, doc_id="x", object_id="w/x"))
    with pytest.raises(Invalid, match="Idempotency-Key"):
        await plane.documents.register(replace(new("b"), upload_key="k1"))
    elsewhere = await plane.documents.register(replace(new("b", "v"), upload_key="k1"))
    await plane.documents.delete("w", first.doc_id)
    with pytest.raises(NotFound):
        await plane.documents.register(replace(keyed, doc_id="y", object_id="w/y"))

    assert (created, again) == (True, (first, False))
    assert elsewhere[1]


async def test_a_hundred_uploads_of_the_same_bytes_at_once_make_one_document(plane: Plane) -> None:
    results = await asyncio.gather(
        *(
            plane.documents.register(replace(new("a"), doc_id=f"d{n}", object_id=f"w/{n}"))
            for n in range(100)
        )
    )
    assert [inserted for _, inserted in results].count(True) == 1
    assert len({document.doc_no for document, _ in results}) == 1


async def test_a_document_is_found_in_its_own_workspace_only(plane: Plane) -> None:
    document, _ = await plane.documents.register(new("a"))
    assert await plane.documents.get("w", document.doc_id) == document
    assert await plane.documents.by_no(document.doc_no) == document
    assert await plane.documents.numbers("w", [document.doc_id]) == {document.doc_no}
    for call in (
        plane.documents.get("v", document.doc_id),
        plane.documents.get("w", "nul\0"),
        plane.documents.numbers("v", [document.doc_id]),
        plane.documents.delete("v", document.doc_id),
    ):
        with pytest.raises(NotFound):
            await call


async def test_pages_go_newest_first_through_all_that_match(plane: Plane) -> None:
    made = [(await plane.documents.register(new(f"Doc{n:02}")))[0] for n in range(7)]
    await plane.documents.register(new("Doc99", "v"))
    await plane.documents.set_state(made[2].doc_no, 1, DocumentState.FAILED, "broken")
    seen: list[str] = []
    cursor = ""
    while True:
        page = await plane.documents.page("w", cursor, 3, "doc0", None)
        seen += [document.name for document in page.items]
        cursor = page.cursor
        if not cursor:
            break
    assert seen == [f"Doc{n:02}.txt" for n in reversed(range(7))]
    failed = await plane.documents.page("w", "", 3, "", DocumentState.FAILED)
    assert failed.items == (replace(made[2], state=DocumentState.FAILED, error="broken"),)
    assert (await plane.documents.page("w", "", 3, "%", None)).items == ()
    for cursor in ("?", "AAAA", "é", "_________w=="):
        with pytest.raises(Invalid, match="cursor"):
            await plane.documents.page("w", cursor, 3, "", None)


async def test_chunks_are_invisible_until_they_are_published(plane: Plane) -> None:
    document, _ = await plane.documents.register(new("a"))
    hit = Hit(document.doc_no, 1, 1, 0.5)
    await plane.log.write_chunks(1, document, chunks(2), vectors(2))
    assert await texts(plane, "w", hit) == []
    job = await plane.jobs.take(["ingest"], 60)
    assert job is not None
    assert await plane.log.publish(job, 1, document, 2)
    assert await plane.documents.passages("w", 1, [hit]) == (
        Passage(document.doc_no, document.doc_id, 1, 1, "a.txt", 2, 10, 19, "text 1", 0.5),
    )
    assert await plane.documents.get("w", document.doc_id) == replace(
        document, state=DocumentState.SEARCHABLE, chunks=2
    )
    assert not await plane.jobs.finish(job)


async def test_a_repeated_batch_replaces_and_a_shorter_try_leaves_nothing(plane: Plane) -> None:
    document, _ = await plane.documents.register(new("a"))
    await plane.log.write_chunks(1, document, chunks(5), vectors(5))
    await plane.log.write_chunks(1, document, chunks(3), vectors(3, seed=1))
    job = await plane.jobs.take(["ingest"], 60)
    assert job is not None
    with pytest.raises(Unavailable):
        await plane.log.publish(job, 1, document, 9)
    assert await plane.log.publish(job, 1, document, 3)
    _, pulled = await plane.log.pull(1, {document.slot: 0})
    assert pulled[0].ords.tolist() == [0, 1, 2]
    np.testing.assert_array_equal(pulled[0].vectors, vectors(3, seed=1))
    await plane.log.write_chunks(1, document, chunks(4), vectors(4))
    _, pulled = await plane.log.pull(1, {document.slot: 0})
    assert pulled[0].ords.tolist() == [0, 1, 2]


async def test_the_last_wall_drops_what_does_not_match_and_keeps_the_order(plane: Plane) -> None:
    mine = await published(plane, "a")
    other = await published(plane, "b", workspace="v")
    hits = (
        Hit(mine.doc_no, 1, 2, 0.9),
        Hit(other.doc_no, 1, 0, 0.8),
        Hit(mine.doc_no, 2, 1, 0.7),
        Hit(mine.doc_no, 1, 7, 0.6),
        Hit(999_999, 1, 0, 0.5),
        Hit(mine.doc_no, 1, 0, 0.4),
    )
    assert await texts(plane, "w", *hits) == ["text 2", "text 0"]
    assert await plane.documents.passages("w", 2, hits) == ()
    assert await plane.documents.passages("w", 1, ()) == ()


async def test_a_deleted_document_is_gone_everywhere_at_once(plane: Plane) -> None:
    document = await published(plane, "a")
    await plane.documents.delete("w", document.doc_id)
    assert await texts(plane, "w", Hit(document.doc_no, 1, 0, 1.0)) == []
    assert await plane.documents.by_no(document.doc_no) is None
    with pytest.raises(NotFound):
        await plane.documents.delete("w", document.doc_id)
    erase = await plane.jobs.take(["erase"], 60)
    assert erase is not None
    assert erase.payload == {"store": "main", "object_id": "w/a"}
    counters, pulled = await plane.log.pull(1, {document.slot: 1})
    assert counters == {document.slot: SlotCounter(document.slot, 2, 0)}
    assert [(p.doc_no, p.seq, p.live, len(p.ords)) for p in pulled] == [
        (document.doc_no, 2, False, 0)
    ]
    assert (await plane.log.pull(1, {document.slot: 0}))[1] == ()
    again, inserted = await plane.documents.register(
        replace(new("a"), doc_id="id-again", object_id="w/again")
    )
    assert inserted
    assert again.doc_no != document.doc_no


async def test_the_sweep_leaves_what_a_document_or_an_erase_job_names(plane: Plane) -> None:
    await published(plane, "kept")
    gone = await published(plane, "gone")
    await plane.documents.delete("w", gone.doc_id)
    ids = ["w/kept", "w/gone", "w/stray"]
    assert await plane.documents.unnamed("main", ids) == ("w/stray",)
    erase = await plane.jobs.take(["erase"], 60)
    assert erase is not None
    await plane.jobs.finish(erase)
    assert await plane.documents.unnamed("main", ids) == ("w/gone", "w/stray")


async def test_a_document_deleted_during_ingest_is_never_published(plane: Plane) -> None:
    document, _ = await plane.documents.register(new("a"))
    job = await plane.jobs.take(["ingest"], 60)
    assert job is not None
    await plane.documents.delete("w", document.doc_id)
    await plane.log.write_chunks(1, document, chunks(1), vectors(1))
    assert not await plane.log.publish(job, 1, document, 1)
    assert (await plane.log.pull(1, {document.slot: 0}))[1] == ()


async def test_a_worker_that_lost_its_lease_cannot_publish(plane: Plane) -> None:
    document, _ = await plane.documents.register(new("a"))
    lost = await plane.jobs.take(["ingest"], 0)
    await asyncio.sleep(0.01)
    held = await plane.jobs.take(["ingest"], 60)
    assert lost is not None
    assert held is not None
    assert (held.id, held.attempts) == (lost.id, 2)
    await plane.log.write_chunks(1, document, chunks(1), vectors(1))
    assert not await plane.log.publish(lost, 1, document, 1)
    assert await plane.log.publish(held, 1, document, 1)


async def test_counters_order_the_events_of_a_slot_and_hash_what_lives(plane: Plane) -> None:
    assert await plane.log.generation() == Generation(1, "test-embedder", 384)
    assert await plane.log.slot_map() == SlotMap(1, initial_owners(2))
    first = await published(plane, "a")
    counters = {counter.slot: counter for counter in await plane.log.counters(1)}
    assert len(counters) == 1024
    assert counters[first.slot] == SlotCounter(first.slot, 1, document_hash(first.doc_no, 1))
    assert await plane.log.counters(2) == ()
    counted, pulled = await plane.log.pull(1, {first.slot: 0})
    assert counted == {first.slot: counters[first.slot]}
    assert [(p.doc_no, p.workspace, p.slot, p.seq, p.ver, p.live) for p in pulled] == [
        (first.doc_no, "w", first.slot, 1, 1, True)
    ]
    np.testing.assert_array_equal(pulled[0].vectors, vectors(3))


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), 0.0])
async def test_vectors_that_no_search_may_meet_are_refused(plane: Plane, bad: float) -> None:
    document, _ = await plane.documents.register(new("a"))
    rows = vectors(2)
    rows[1] = bad
    with pytest.raises(Invalid, match="finite and not all zero"):
        await plane.log.write_chunks(1, document, chunks(2), rows)


async def test_text_that_the_database_cannot_hold_keeps_its_length(plane: Plane) -> None:
    document, _ = await plane.documents.register(new("a"))
    odd = [Chunk(0, 0, 5, None, "a\0b\ud800c")]
    await plane.log.write_chunks(1, document, odd, vectors(1))
    job = await plane.jobs.take(["ingest"], 60)
    assert job is not None
    assert await plane.log.publish(job, 1, document, 1)
    [text] = await texts(plane, "w", Hit(document.doc_no, 1, 0, 1.0))
    assert (len(text), text[0], text[2], text[4]) == (5, "a", "b", "c")
    with pytest.raises(Invalid, match="name"):
        await plane.documents.register(replace(new("b"), name="nul\0.txt"))


async def test_progress_never_takes_back_what_is_searchable(plane: Plane) -> None:
    document = await published(plane, "a")
    await plane.documents.set_state(document.doc_no, 1, DocumentState.FAILED, "late")
    assert (await plane.documents.get("w", document.doc_id)).state is DocumentState.SEARCHABLE


async def test_the_corpus_is_counted_without_the_self_test(plane: Plane) -> None:
    await published(plane, "a", count=3)
    await published(plane, "b", count=2, workspace="v")
    await published(plane, "c", count=9, workspace="_self-test")
    gone = await published(plane, "d", count=5)
    await plane.documents.delete("w", gone.doc_id)
    assert await plane.documents.counts() == RetrievalStatus(
        generation=1, slot_map_epoch=1, documents=2, chunks=5
    )


async def test_each_store_is_counted_with_what_waits_to_be_erased_there(plane: Plane) -> None:
    await plane.documents.register(replace(new("a"), store="main"))
    await plane.documents.register(replace(new("b"), store="more"))
    hidden = replace(new("c"), store="main", workspace="_self-test", object_id="_self-test/c")
    await plane.documents.register(hidden)
    gone, _ = await plane.documents.register(replace(new("d"), store="more"))
    await plane.documents.delete("w", gone.doc_id)
    assert await plane.documents.stored() == {"main": 1, "more": 2}
    job = await plane.jobs.take([JobKind.ERASE], 60)
    assert job is not None
    assert await plane.jobs.finish(job)
    assert await plane.documents.stored() == {"main": 1, "more": 1}


async def test_an_unfinished_job_is_there_once_and_held_by_one(plane: Plane) -> None:
    assert await plane.jobs.enqueue("sweep", "main", "w", {"n": 1}, 0)
    assert not await plane.jobs.enqueue("sweep", "main", "w", {}, 0)
    assert await plane.jobs.enqueue("sweep", "later", "w", {}, 3600)
    taken = await asyncio.gather(*(plane.jobs.take(["sweep"], 60) for _ in range(8)))
    [job] = [one for one in taken if one is not None]
    assert (job.kind, job.key, job.payload) == ("sweep", "main", {"n": 1})
    assert await plane.jobs.renew(job, 60, "half")
    assert await plane.jobs.finish(job)
    assert not await plane.jobs.renew(job, 60, "more")
    assert await plane.jobs.enqueue("sweep", "main", "w", {}, 0)


async def test_a_failed_job_runs_again_or_never(plane: Plane) -> None:
    await plane.jobs.enqueue("sweep", "main", "w", {}, 0)
    first = await plane.jobs.take(["sweep"], 60)
    assert first is not None
    assert await plane.jobs.fail(first, "no answer", 0)
    assert not await plane.jobs.fail(first, "again", 0)
    second = await plane.jobs.take(["sweep"], 60)
    assert second is not None
    assert second.attempts == 2
    assert await plane.jobs.give_back(second, "store away", 0)
    assert not await plane.jobs.give_back(second, "again", 0)
    second = await plane.jobs.take(["sweep"], 60)
    assert second is not None
    assert second.attempts == 2
    assert await plane.jobs.fail(second, "for good", None)
    assert await plane.jobs.take(["sweep"], 60) is None
    assert await plane.jobs.enqueue("sweep", "main", "w", {}, 0)
