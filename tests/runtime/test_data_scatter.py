"""The scatter over the wire and its fake keep one contract; processes may fail in between."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

import numpy as np
import pytest
from fakes.data import FakeDocuments, FakeEventLog, World
from fakes.jobs import FakeJobs
from fakes.people import FakeMembers
from fakes.shards import FakeShards
from numpy.typing import NDArray

from chatbot_core.errors import Busy, Invalid
from chatbot_core.retry import Deadline
from chatbot_core.slots import slot_of
from chatbot_runtime import ports
from chatbot_runtime.adapters.faiss_index import FaissIndex
from chatbot_runtime.adapters.shard_client import ShardClient
from chatbot_runtime.adapters.shard_server import serve_shard
from chatbot_runtime.clock import SystemClock
from chatbot_runtime.domain.model import Chunk, Document, MemberRow, NewDocument, Query
from chatbot_runtime.domain.scatter import ALL_SLOTS, Answer, Ask
from chatbot_runtime.services.shard import Shard

CLOCK = SystemClock()


def token() -> str:
    return "token"


def deadline(wait_s: float = 2.0) -> Deadline:
    return Deadline.after(CLOCK.monotonic_s(), wait_s)


def axis(number: int) -> NDArray[np.float32]:
    vector = np.zeros(384, np.float32)
    vector[number] = 1.0
    return vector


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not holds():  # noqa: ASYNC110 - the product has no event to wait for
            await asyncio.sleep(0.01)


@dataclass
class Tier:
    """Shards inside this process, over the log in memory."""

    world: World = field(default_factory=World)
    running: dict[str, contextlib.AsyncExitStack] = field(default_factory=dict)
    shards: dict[str, Shard] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.log = FakeEventLog(self.world)
        self.members = FakeMembers(self.world.clock)
        self.client = ShardClient(self.log, self.members, token, CLOCK)

    async def start(
        self, name: str, number: int, *, follows: bool = True, max_waiting: int = 1024
    ) -> None:
        shard = Shard(number, self.log, lambda one: FaissIndex(one.dimension), CLOCK)
        stack = contextlib.AsyncExitStack()
        port = await stack.enter_async_context(
            serve_shard(shard, token, "127.0.0.1", 0, max_waiting)
        )
        if follows:
            following = asyncio.create_task(shard.follow())
            stack.callback(following.cancel)
            await until(lambda: shard.ready()[0])
        self.running[name], self.shards[name] = stack, shard
        await self.tell(name, f"127.0.0.1:{port}", number)

    async def tell(self, name: str, address: str, number: int) -> None:
        row = MemberRow("shard", name, address, 0.0, "", "", 1, ready=True, shard=number)
        await self.members.beat(row)

    async def stop(self, name: str) -> None:
        await self.running.pop(name).aclose()

    async def level(self) -> None:
        """Wait until every running shard has applied everything."""
        counters = await self.log.counters(1)
        for shard in self.shards.values():
            await until(
                lambda: all(
                    not shard.holdings.behind({one.slot: one.seq})  # noqa: B023 - awaited in this turn
                    for one in counters
                )
            )

    async def publish(self, doc_id: str, vector: NDArray[np.float32]) -> Document:
        new = NewDocument(
            doc_id, "w", doc_id, "text/plain", 1, doc_id.encode().ljust(32), "main",
            f"w/{doc_id}", slot_of(doc_id),
        )  # fmt: skip
        document, _ = await FakeDocuments(self.world).register(new)
        rows = vector.astype(np.float16).reshape(1, -1)
        await self.log.write_chunks(1, document, [Chunk(0, 0, 1, None, doc_id)], rows)
        job = await FakeJobs(self.world).take(["ingest"], 60)
        assert job is not None
        assert await self.log.publish(job, 1, document, 1)
        return document

    async def found(self, query: Query, wait_s: float = 2.0) -> list[int]:
        found = await self.client.search(query, deadline(wait_s))
        assert found.coverage == 1.0
        return [hit.doc_no for hit in found.hits]


@pytest.fixture
async def tier() -> AsyncIterator[Tier]:
    one = Tier()
    await one.start("a", 0)
    await one.start("b", 1)
    yield one
    await one.client.close()
    for name in list(one.running):
        await one.stop(name)


@pytest.fixture(params=["fake", "wire"])
def shards(request: pytest.FixtureRequest, tier: Tier) -> ports.Shards:
    return FakeShards(tier.log) if request.param == "fake" else tier.client


async def test_the_best_come_first_and_only_from_their_workspace(
    tier: Tier, shards: ports.Shards
) -> None:
    near = await tier.publish("near", axis(0))
    half = await tier.publish("half", (axis(0) + axis(1)) / np.float32(2**0.5))
    for document in (near, half):
        assert await shards.searchable(document.slot, 1, deadline())
    found = await shards.search(Query(axis(0), "w", 10, 1), deadline())
    assert (found.coverage, [(hit.doc_no, hit.ver, hit.ord) for hit in found.hits]) == (
        1.0,
        [(near.doc_no, 1, 0), (half.doc_no, 1, 0)],
    )
    assert [round(hit.score, 2) for hit in found.hits] == [1.0, 0.71]
    one = Query(axis(0), "w", 10, 1, frozenset({half.doc_no}))
    assert [hit.doc_no for hit in (await shards.search(one, deadline())).hits] == [half.doc_no]
    assert (await shards.search(Query(axis(0), "v", 10, 1), deadline())).hits == ()
    assert len((await shards.search(Query(axis(0), "w", 1, 1), deadline())).hits) == 1


async def test_what_cannot_be_answered_is_said(tier: Tier, shards: ports.Shards) -> None:
    other = await shards.search(Query(axis(0), "w", 1, 7), deadline(0.5))
    assert other.missing_slots == ALL_SLOTS
    with pytest.raises(Invalid):
        await shards.search(Query(np.ones(3, np.float32), "w", 1, 1), deadline())
    assert not await shards.searchable(5, 999, deadline(0.5))


async def test_a_lost_replica_is_answered_for_by_its_partner(tier: Tier) -> None:
    await tier.start("b2", 1)
    document = await tier.publish("d", axis(3))
    await tier.level()
    query = Query(axis(3), "w", 1, 1)
    assert await tier.found(query) == [document.doc_no]
    await tier.stop("b")
    for _ in range(5):
        assert await tier.found(query) == [document.doc_no]


async def test_a_silent_replica_leaves_time_for_its_partner(tier: Tier) -> None:
    ended: list[bool] = []

    async def swallow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            await reader.read()
        writer.close()
        await writer.wait_closed()
        ended.append(True)

    silent = await asyncio.start_server(swallow, "127.0.0.1", 0)
    address = f"127.0.0.1:{silent.sockets[0].getsockname()[1]}"
    await tier.tell("0-asked-first", address, 0)
    document = await tier.publish("d", axis(3))
    await tier.level()
    assert await tier.found(Query(axis(3), "w", 1, 1), wait_s=3.0) == [document.doc_no]
    await tier.client.close()
    await until(lambda: bool(ended))
    silent.close()
    await silent.wait_closed()


async def test_a_process_that_vanished_with_its_machine_is_left_within_seconds(tier: Tier) -> None:
    """Nothing answers and nothing closes; then a new process of that name is told of."""
    document = await tier.publish("d", axis(3))
    await tier.level()
    query = Query(axis(3), "w", 1, 1)
    assert await tier.found(query) == [document.doc_no]
    address = (await tier.members.live(60))[0].address
    frozen = tier.client._links[address]._connection
    assert frozen is not None
    frozen._take = lambda frame: None  # type: ignore[method-assign] # packets that never arrive
    began_s = CLOCK.monotonic_s()
    found = await tier.client.search(query, deadline(60.0))
    took_s = CLOCK.monotonic_s() - began_s
    assert (found.coverage, 1.5 < took_s < 5.0, frozen.lost) == (1.0, True, True)


async def test_too_many_questions_are_refused_at_once_and_those_in_line_are_answered(
    tier: Tier,
) -> None:
    for name in ("a", "b"):
        await tier.stop(name)
    await tier.start("a", 0, max_waiting=4)
    await tier.start("b", 1, max_waiting=4)
    query = Query(axis(0), "w", 1, 1)
    assert await tier.found(query) == []
    slow = tier.shards["a"]
    answer = slow.answer

    def slowly(ask: Ask) -> Answer:
        time.sleep(0.02)
        return answer(ask)

    slow.answer = slowly  # type: ignore[method-assign] # a search that takes its time
    began_s = CLOCK.monotonic_s()
    ended = await asyncio.gather(
        *(tier.client.search(query, deadline(5.0)) for _ in range(40)), return_exceptions=True
    )
    took_s = CLOCK.monotonic_s() - began_s
    refused = [one for one in ended if isinstance(one, Busy)]
    assert len(refused) + [getattr(one, "coverage", 0) for one in ended].count(1.0) == 40
    assert len(refused) >= 20
    assert took_s < 1.0


async def test_a_shard_that_cannot_follow_stops_answering(tier: Tier) -> None:
    """Two seconds without a look at the log: it may be paused, cut off or replaced."""
    await tier.stop("b")
    await tier.start("b", 1, follows=False)
    await tier.shards["b"].step()
    query = Query(axis(0), "w", 1, 1)
    assert (await tier.client.search(query, deadline())).coverage == 1.0
    await asyncio.sleep(2.0)
    assert (await tier.client.search(query, deadline(0.5))).coverage == 0.5


async def test_a_new_owner_is_found_after_the_old_one_refused(tier: Tier) -> None:
    """The client's slot map is old: the shard refuses, the client reads anew and asks again."""
    assert await tier.found(Query(axis(0), "w", 1, 1)) == []
    tier.world.shards = 1
    for shard in tier.shards.values():
        shard._map_due_s = 0.0
    document = await tier.publish("d", axis(3))
    a, b = tier.shards["a"].holdings, tier.shards["b"].holdings
    await until(lambda: len(a.ready) == 1024 and not b.held)
    await tier.level()
    assert await tier.found(Query(axis(3), "w", 1, 1)) == [document.doc_no]


async def test_a_question_for_more_than_is_applied_polls_at_once(tier: Tier) -> None:
    document = await tier.publish("d", axis(3))
    began_s = CLOCK.monotonic_s()
    assert await tier.client.searchable(document.slot, 1, deadline())
    assert CLOCK.monotonic_s() - began_s < 0.09


async def test_a_thousand_questions_at_once_share_a_connection(tier: Tier) -> None:
    documents = [await tier.publish(f"d{n}", axis(n)) for n in range(20)]
    for document in documents:
        assert await tier.client.searchable(document.slot, 1, deadline())
    answers = await asyncio.gather(
        *(tier.found(Query(axis(n % 20), "w", 1, 1), wait_s=20.0) for n in range(1000))
    )
    assert answers == [[documents[n % 20].doc_no] for n in range(1000)]
    assert len(tier.client._links) == 2
