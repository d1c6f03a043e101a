"""How long nobody works when the replica that leads is killed, and when it is asked to end."""

from __future__ import annotations

import asyncio
import time
from typing import Final

from operatorbench import fleet
from operatorbench.phases import Bench, ready
from operatorbench.subject import Subject

_LEADER_S: Final = 60.0


async def measure(bench: Bench) -> None:
    """Run two replicas on one Lease; end each leader just before an edit and time the edit."""
    await asyncio.to_thread(bench.subject.stop)
    replicas = [
        Subject(bench.subject.files, bench.subject.kubeconfig, name=f"replica-{number}", leads=True)
        for number in range(3)
    ]
    try:
        for one in replicas[:2]:
            one.start()
            await ready(one)
        bench.figures["failover_kill_s"] = await _without(
            bench, await _leader(replicas[:2]), passages=7, kill=True
        )
        replicas[2].start()
        await ready(replicas[2])
        bench.figures["failover_term_s"] = await _without(
            bench, await _leader(replicas), passages=8, kill=False
        )
    finally:
        for one in replicas:
            one.stop()


async def _leader(replicas: list[Subject]) -> Subject:
    start_s = time.monotonic()
    while time.monotonic() - start_s < _LEADER_S:
        for one in replicas:
            if one.alive and (await one.read()).total("leader"):
                return one
        await asyncio.sleep(0.1)
    raise TimeoutError(f"no replica leads within {_LEADER_S:.0f} s")


async def _without(bench: Bench, leader: Subject, *, passages: int, kill: bool) -> float:
    """End the leader and edit an object; return the seconds until the child is written."""
    key = bench.keys[0]
    former = bench.view.document(key)
    start_s = time.monotonic()
    ending = asyncio.create_task(asyncio.to_thread(leader.kill if kill else leader.stop))
    await bench.view.apply(key, fleet.spec(passages=passages))
    await fleet.until(lambda: bench.view.document(key) != former, "a write after a leader", 60)
    took_s = time.monotonic() - start_s
    await ending
    return took_s
