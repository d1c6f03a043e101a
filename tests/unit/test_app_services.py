"""Windows, job workers and the internal port."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import httpx
import pytest
from fakes.application import ScriptedModel, WordEmbedder
from fakes.data import FakeDocuments, FakeEventLog, World
from fakes.jobs import FakeJobs
from fakes.people import FakeMembers, FakeSettings
from hypothesis import given
from hypothesis import strategies as st
from starlette.applications import Starlette

from chatbot_core.errors import Invalid, Unavailable
from chatbot_core.runtime_config import Inference, Live, RuntimeStatus
from chatbot_core.slots import SLOT_COUNT
from chatbot_runtime.adapters.postgres.schema import WORKS_FROM
from chatbot_runtime.domain.model import Job, JobKind, MemberRow
from chatbot_runtime.routes.internal import internal_routes
from chatbot_runtime.services.health import FIRST_RELEASE, Health, HealthPorts, Readiness
from chatbot_runtime.services.jobs import MAX_ATTEMPTS, Worker
from chatbot_runtime.services.windows import Summary, Windows


def member(role: str, name: str, *, ready: bool = True, shard: int | None = None) -> MemberRow:
    return MemberRow(role, name, "10.0.0.1:1", 0.0, "1", "v1:x", 1, ready, "", shard)


def test_percentiles_are_nearest_rank_over_the_last_15_minutes() -> None:
    windows = Windows(lambda: 0.5)
    windows.record("embed", 999.0, now_s=0)
    for value in range(1, 101):
        windows.record("embed", float(value), now_s=1000)

    assert windows.summary("embed", 1000) == Summary(100, 1.0, 100.0, 50.5, 50.0, 95.0, 99.0)
    assert windows.summary("other", 1000) is None
    assert windows.summary("embed", 2000) is None


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=3000))
def test_windows_keep_exact_extremes_in_constant_memory(values: list[float]) -> None:
    windows = Windows(lambda: 0.3)
    for value in values:
        windows.record("x", value, now_s=5)

    summary = windows.summary("x", 5)

    assert summary is not None
    assert (summary.count, summary.max) == (len(values), round(max(values), 3))
    assert summary.min <= summary.p50 <= summary.p95 <= summary.p99 <= summary.max
    assert sum(len(minute.samples) for minute in windows._minutes["x"]) <= 512


@dataclass
class Scripted:
    """A handler that does what it is told, try by try."""

    outcomes: list[Exception | None]
    reasons: list[str] = field(default_factory=list)

    async def run(self, job: Job, progress: Callable[[str], None]) -> None:
        outcome = self.outcomes.pop(0)
        if outcome is not None:
            raise outcome

    async def failed(self, job: Job, reason: str) -> None:
        self.reasons.append(reason)


async def worked(world: World, handler: Scripted, turns: int = 10) -> list[str]:
    """Let a worker run; return the errors of jobs that failed for good."""
    worker = Worker(FakeJobs(world), {JobKind.INGEST: handler}, lambda: 0.5)
    for _ in range(turns):
        await worker.step()
        world.clock.now_s += 100
    return handler.reasons


def queued() -> World:
    world = World()
    world.enqueue(JobKind.INGEST, "1", "default", {}, 0)
    return world


async def test_what_is_away_is_tried_again_until_it_is_back() -> None:
    tries = 3 * MAX_ATTEMPTS
    world, handler = queued(), Scripted([Unavailable("database")] * tries + [None])

    assert await worked(world, handler, tries + 1) == []
    assert (handler.outcomes, world.jobs) == ([], {})


async def test_a_stopped_worker_gives_its_job_to_the_next_at_once() -> None:
    world, working = queued(), asyncio.Event()

    class Endless:
        async def run(self, job: Job, progress: Callable[[str], None]) -> None:
            working.set()
            await asyncio.sleep(60)

        async def failed(self, job: Job, reason: str) -> None:
            raise AssertionError(reason)

    jobs = FakeJobs(world)
    for _ in range(2 * MAX_ATTEMPTS):
        working.clear()
        turn = asyncio.create_task(Worker(jobs, {JobKind.INGEST: Endless()}, lambda: 0.5).step())
        await asyncio.wait_for(working.wait(), 5)
        turn.cancel()
        with pytest.raises(asyncio.CancelledError):
            await turn

    taken = await jobs.take([JobKind.INGEST], 30)
    assert taken is not None
    assert taken.attempts == 1


async def test_a_bad_document_fails_at_once_with_its_reason() -> None:
    world, handler = queued(), Scripted([Invalid("content", "a ZIP archive", "a text file")])

    assert await worked(world, handler) == ["a ZIP archive; must be a text file"]
    assert handler.outcomes == []


async def test_a_job_that_breaks_again_and_again_is_given_up() -> None:
    world, handler = queued(), Scripted([ValueError("boom")] * 99)

    assert await worked(world, handler) == ["an internal error repeated itself: ValueError"]
    assert len(handler.outcomes) == 99 - MAX_ATTEMPTS


async def test_a_job_that_ends_its_worker_is_given_up() -> None:
    world, handler = queued(), Scripted([None])
    jobs = FakeJobs(world)
    for _ in range(MAX_ATTEMPTS):
        assert await jobs.take([JobKind.INGEST], 30)
        world.clock.now_s += 100

    assert await worked(world, handler) == ["given up after 5 attempts that ended without a result"]


async def test_a_worker_that_lost_its_lease_stops_working() -> None:
    world, stopped = queued(), asyncio.Event()

    class Endless:
        async def run(self, job: Job, progress: Callable[[str], None]) -> None:
            world.jobs[job.id].job = replace(world.jobs[job.id].job, token="another's")
            try:
                await asyncio.sleep(60)
            finally:
                stopped.set()

        async def failed(self, job: Job, reason: str) -> None:
            raise AssertionError(reason)

    worker = Worker(FakeJobs(world), {JobKind.INGEST: Endless()}, lambda: 0.5, lease_s=0.03)

    assert await asyncio.wait_for(worker.step(), 5)
    assert stopped.is_set()
    assert [known.job.token for known in world.jobs.values()] == ["another's"]


@dataclass
class Cluster:
    """The worlds that health asks."""

    world: World = field(default_factory=World)
    live: Live = field(default_factory=lambda: Live(inference=Inference(model="scripted")))

    def __post_init__(self) -> None:
        self.members = FakeMembers(self.world.clock)
        self.settings = FakeSettings()
        self.ports = HealthPorts(
            FakeDocuments(self.world),
            FakeEventLog(self.world),
            self.members,
            self.settings,
            ScriptedModel(),
            WordEmbedder(),
        )
        windows = Windows(lambda: 0.5)
        windows.record("document_processing", 12.0, self.world.clock.monotonic_s())
        self.health = Health(self.ports, windows, self.world.clock, lambda: self.live)

    async def complete(self) -> None:
        await self.settings.write("schema_version", {"version": 1})
        for index in (0, 1):
            await self.members.beat(member("shard", f"shard-{index}", shard=index))
        await self.members.beat(member("inference-proxy", "inference-0"))

    def client(self) -> httpx.AsyncClient:
        app = Starlette(routes=internal_routes(self.health, lambda: "internal"))
        return httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://t")


async def test_health_details_have_the_known_shape() -> None:
    cluster = Cluster()
    await cluster.complete()

    async with cluster.client() as http:
        body = (await http.get("/health/detail")).json()
        plain = (await http.get("/health")).json()
        other = (await http.get("/health/detail", params={"name": "embed"})).json()

    assert plain == {"status": "ok"}
    assert body == {
        "status": "ok",
        "components": {
            "database": {"status": "ok", "responseTime": "0ms"},
            "ollama": {
                "status": "ok",
                "responseTime": "0ms",
                "models": 1,
                "instances": [{"name": "inference-0", "status": "ok", "reason": ""}],
            },
            "shards": {
                "status": "ok",
                "responseTime": "0ms",
                "ready": 2,
                "instances": [
                    {"name": "shard-0", "status": "ok", "reason": ""},
                    {"name": "shard-1", "status": "ok", "reason": ""},
                ],
            },
        },
        "metrics": {
            "document_processing": {
                "count": 1, "min": 12.0, "max": 12.0, "avg": 12.0, "p50": 12.0, "p95": 12.0,
                "p99": 12.0,
            }
        },
    }  # fmt: skip
    assert other["metrics"] == {}


async def test_a_failing_component_says_why_without_addresses() -> None:
    cluster = Cluster()
    await cluster.complete()
    await cluster.members.leave("shard", "shard-1")

    async with cluster.client() as http:
        body = (await http.get("/health/detail")).json()

    assert (body["status"], body["components"]["shards"]["status"]) == ("degraded", "error")
    assert body["components"]["shards"]["details"] == "shards is unavailable: not ready: 1"
    assert "10.0.0.1" not in str(body)


async def test_the_status_needs_the_token_and_answers_304_while_nothing_changes() -> None:
    cluster = Cluster()
    await cluster.complete()
    right = {"Authorization": "Bearer internal"}

    async with cluster.client() as http:
        none = await http.get("/internal/status")
        wrong = await http.get("/internal/status", headers={"Authorization": "Bearer other"})
        first = await http.get("/internal/status", headers=right)
        cluster.world.clock.now_s += 1
        same = await http.get(
            "/internal/status", headers={**right, "If-None-Match": first.headers["etag"]}
        )
        await cluster.members.leave("shard", "shard-1")
        changed = await http.get(
            "/internal/status", headers={**right, "If-None-Match": first.headers["etag"]}
        )

    assert [reply.status_code for reply in (none, wrong, first, same, changed)] == [
        401, 401, 200, 304, 200,
    ]  # fmt: skip
    status = RuntimeStatus.model_validate_json(first.content)
    assert (status.database, status.schema_version, len(status.members)) == ("ok", 1, 3)
    assert status.model.name == "scripted"
    assert status.oldest_version == "0.1.0"
    assert sum(status.owned_slots) == SLOT_COUNT


def test_every_schema_that_images_work_from_has_the_release_that_brought_it() -> None:
    assert set(WORKS_FROM.values()) <= set(FIRST_RELEASE)


async def test_an_unmigrated_database_is_said_so() -> None:
    assert (await Cluster().health.status()).database == "unmigrated"


async def test_readiness_names_what_is_missing_and_stays_once_reached(
    caplog: pytest.LogCaptureFixture,
) -> None:
    cluster = Cluster()
    readiness = Readiness(cluster.ports, lambda: cluster.live)

    async def looked() -> tuple[bool, str]:
        await readiness.look()
        return readiness.ready()

    nothing = await looked()
    await cluster.complete()
    complete = await looked()
    await cluster.members.leave("shard", "shard-0")

    assert nothing == (False, "shards not ready: 0, 1")
    assert complete == (True, "")
    assert await looked() == (True, "shards not ready: 0")
