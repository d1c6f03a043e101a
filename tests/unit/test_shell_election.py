"""The election and the fence against an API server in memory, with clocks that the test moves."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

import pytest
from fakes.kube import FakeKube

from chatbot_core.errors import Denied
from chatbot_operator import lease
from chatbot_operator.election import Election
from chatbot_operator.fence import Fence
from chatbot_operator.kinds import Ref
from chatbot_operator.kube import WriteRefused

REF = Ref("Lease", "chatbot-system", "chatbot-operator")
WALL_S = 1_790_000_000.0


@dataclass(slots=True)
class Stage:
    """Two processes, `a` and `b`, that share a server and nothing else."""

    kube: FakeKube = field(default_factory=FakeKube)
    now_s: float = 1000.0
    wall_s: float = WALL_S

    def process(self, name: str) -> Election:
        return Election(self.kube, REF, name, lambda: self.now_s, lambda: self.wall_s)

    def holder(self) -> str | None:
        live = self.kube.objects.get(REF)
        return None if live is None else live["spec"]["holderIdentity"]

    async def released(self) -> Stage:
        """Let the Lease be there, free, as it is installed."""
        await self.kube.put_live(lease.missing(REF, ""))
        return self


@pytest.fixture
async def stage() -> Stage:
    return await Stage().released()


async def test_the_first_leads_at_once_and_the_second_follows(stage: Stage) -> None:
    a, b = stage.process("a"), stage.process("b")
    await a.step()
    await b.step()
    assert (a.leads, b.leads, stage.holder()) == (True, False, "a")
    assert (a.write_left_s(), b.write_left_s()) == (14.0, 0.0)


async def test_a_silent_leader_is_replaced_after_the_lease_and_finds_out(stage: Stage) -> None:
    a, b = stage.process("a"), stage.process("b")
    await a.step()
    await b.step()
    stage.now_s += 14.9
    await b.step()
    assert (b.leads, a.write_left_s()) == (False, 0.0)
    stage.now_s += 0.2
    await b.step()
    assert (b.leads, stage.holder()) == (True, "b")
    await a.step()
    assert not a.leads
    await a.step()
    assert stage.holder() == "b"


@pytest.mark.parametrize("step_s", [300.0, -300.0, 0.0])
async def test_a_step_of_the_wall_clock_changes_no_decision(stage: Stage, step_s: float) -> None:
    a, b = stage.process("a"), stage.process("b")
    await a.step()
    for _ in range(20):
        stage.wall_s += step_s
        stage.now_s += 2.0
        await a.step()
        await b.step()
        assert (a.leads, b.leads) == (True, False)
    stage.now_s += lease.DURATION_S
    stage.wall_s -= step_s
    await b.step()
    assert (b.leads, stage.holder()) == (True, "b")


async def test_a_leader_that_cannot_renew_steps_down_and_resumes(stage: Stage) -> None:
    a = stage.process("a")
    await a.step()
    stage.kube.down = True
    stage.now_s += 9.9
    await a.step()
    assert a.leads
    stage.now_s += 0.1
    await a.step()
    assert not a.leads
    stage.kube.down = False
    await a.step()
    assert a.leads
    assert stage.kube.objects[REF]["spec"]["leaseTransitions"] == 1


async def test_a_lost_answer_costs_nothing(stage: Stage) -> None:
    a = stage.process("a")
    await a.step()
    # The server has taken a renewal whose answer never came.
    live = stage.kube.objects[REF]
    await stage.kube.put_live(lease.held(live, "a", WALL_S + 1, ""))
    stage.now_s += 2.0
    await a.step()
    assert (a.leads, a.write_left_s()) == (True, 14.0)


async def test_a_deleted_lease_is_made_again_by_its_leader(stage: Stage) -> None:
    a, b = stage.process("a"), stage.process("b")
    await a.step()
    await stage.kube.remove(REF)
    await b.step()
    await a.step()
    assert (a.leads, b.leads, stage.holder()) == (True, False, "a")


async def test_without_lease_and_leader_it_is_restored_and_waited_out(stage: Stage) -> None:
    b = stage.process("b")
    await stage.kube.remove(REF)
    await b.step()
    stage.now_s += lease.MISSING_S
    await b.step()
    assert (b.leads, stage.holder()) == (False, lease.NOBODY)
    await b.step()
    stage.now_s += lease.DURATION_S
    await b.step()
    assert (b.leads, stage.holder()) == (True, "b")


async def test_a_refused_renewal_is_no_renewal(stage: Stage) -> None:
    a = stage.process("a")
    stage.kube.refuse[REF] = WriteRefused(403, "Forbidden", "no right")
    await a.step()
    assert not a.leads


async def test_the_work_lasts_as_long_as_the_lead_and_is_then_given_back(stage: Stage) -> None:
    a, fence = stage.process("a"), Fence()
    story: list[str] = []
    working = asyncio.Event()

    async def work() -> None:
        story.append("works")
        working.set()
        try:
            await asyncio.Event().wait()
        finally:
            story.append(f"ends, lease held by {stage.holder()}, left {a.write_left_s()}")

    life = asyncio.create_task(a.run(work, fence.drained))
    await working.wait()
    life.cancel()
    await asyncio.gather(life, return_exceptions=True)
    assert story == ["works", "ends, lease held by a, left 0.0"]
    assert stage.holder() == ""


async def test_work_that_fails_ends_the_process_and_frees_the_lease(stage: Stage) -> None:
    async def work() -> None:
        raise ValueError("a fault of our own")

    with pytest.raises(ValueError, match="our own"):
        await stage.process("a").run(work, Fence().drained)
    assert stage.holder() == ""


async def test_a_lost_lease_ends_the_work_and_a_regained_one_begins_it_again(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "RENEW_EVERY_S", 0.01)
    monkeypatch.setattr(lease, "LOOK_EVERY_S", 0.01)
    a = stage.process("a")
    story: asyncio.Queue[str] = asyncio.Queue()

    async def work() -> None:
        story.put_nowait("begins")
        try:
            await asyncio.Event().wait()
        finally:
            story.put_nowait("ends")

    life = asyncio.create_task(a.run(work, Fence().drained))
    assert await story.get() == "begins"
    await stage.kube.put_live(lease.held(stage.kube.objects[REF], "b", WALL_S + 9, ""))
    assert await story.get() == "ends"
    assert not a.leads
    await stage.kube.put_live(lease.released(stage.kube.objects[REF]))
    assert await story.get() == "begins"
    life.cancel()
    await asyncio.gather(life, return_exceptions=True)


async def test_a_closed_fence_denies_and_an_open_one_says_how_long() -> None:
    left_s = [3.0]
    fence = Fence(lambda: left_s[0])
    with fence.writing(10.0) as limit_s:
        assert limit_s == 3.0
        waiting = asyncio.create_task(fence.drained())
        await asyncio.sleep(0)
        assert not waiting.done()
    await waiting
    with fence.writing(2.0) as limit_s:
        assert limit_s == 2.0
    left_s[0] = 0.0
    with pytest.raises(Denied, match="another process leads"), fence.writing(10.0):
        raise AssertionError("it may not begin")
