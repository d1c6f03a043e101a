"""SIGKILL at any moment of a creation: the next operator ends where an undisturbed one does."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import pytest
from fakes import operator_process
from fakes.apiserver import Admin, StartOperator, new_namespace
from fakes.end_state import end_state
from fakes.objects import SETTINGS, cluster

from chatbot_operator import status
from chatbot_operator.main import Process
from localkube.testserver import LoopbackServer

KILLS = 20
OBJECTS = 4
#: A new operator needs about 0.3 s to its first write, and a second for all of them.
ALIVE_S = (0.2, 0.7)


@pytest.fixture(autouse=True)
def _no_held_back_status(monkeypatch: pytest.MonkeyPatch) -> None:
    """Write at once what else waits for a minute, so that rest is rest."""
    monkeypatch.setattr(status, "QUIET_S", 0.5)


async def test_killed_twenty_times_it_still_makes_exactly_what_an_undisturbed_one_makes(
    server: LoopbackServer,
    operator_kubeconfig: Path,
    start_operator: StartOperator,
    admin: Admin,
    namespace: str,
    request: pytest.FixtureRequest,
) -> None:
    seed = random.randrange(1_000_000)
    moments = random.Random(seed)
    disturbed = [new_namespace(server) for _ in range(OBJECTS)]
    process = Process(SETTINGS, tuple(disturbed), port=0, log_level="ERROR")
    kills = KILLS * (5 if request.config.getoption("--all") else 1)
    for number in range(kills):
        if number % (kills // OBJECTS) == 0:
            await admin.create(cluster(disturbed[number // (kills // OBJECTS)]))
        victim = operator_process.start(operator_kubeconfig, process)
        await asyncio.sleep(moments.uniform(*ALIVE_S))
        assert victim.is_alive(), f"it ended by itself (seed {seed})"
        victim.kill()
        await asyncio.to_thread(victim.join)
    async with start_operator(namespace, *disturbed) as running:
        await admin.create(cluster(namespace))
        await running.quiet(2.0)
        expected = await end_state(admin, namespace)
        for one in disturbed:
            assert await end_state(admin, one) == expected, f"seed {seed}"
    async with start_operator(*disturbed) as running:
        await asyncio.sleep(3)
        assert running.writes() == [], f"seed {seed}"
