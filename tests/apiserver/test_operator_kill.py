"""SIGKILL at any moment of a creation: the next operator ends where an undisturbed one does."""

from __future__ import annotations

import asyncio
import random
import re
from base64 import b64decode
from pathlib import Path
from typing import Any

import pytest
from fakes import operator_process
from fakes.apiserver import Admin, StartOperator, new_namespace
from fakes.objects import SETTINGS, cluster

from chatbot_core import names
from chatbot_operator import status
from chatbot_operator.kinds import RESOURCES, Object
from chatbot_operator.main import Process
from localkube.testserver import LoopbackServer

KILLS = 20
OBJECTS = 4
#: A new operator needs about 0.3 s to its first write, and a second for all of them.
ALIVE_S = (0.2, 0.7)
_OF_THE_SERVER = frozenset(
    {"resourceVersion", "creationTimestamp", "managedFields", "uid", "clusterIP", "clusterIPs"}
    | {"status", "generation", "secrets", "batch.kubernetes.io/controller-uid", "controller-uid"}
    | {names.ANNOTATION_APPLIED, names.ANNOTATION_CLUSTER_UID}
)


@pytest.fixture(autouse=True)
def _no_held_back_status(monkeypatch: pytest.MonkeyPatch) -> None:
    """Write at once what else waits for a minute, so that rest is rest."""
    monkeypatch.setattr(status, "QUIET_S", 0.5)


def plain(value: Any, namespace: str) -> Any:
    """Return a value without what differs between two objects of the same spec."""
    if isinstance(value, dict):
        kept = {key: below for key, below in value.items() if key not in _OF_THE_SERVER}
        return {key: plain(below, namespace) for key, below in kept.items()}
    if isinstance(value, list):
        return [plain(item, namespace) for item in value]
    if isinstance(value, str):
        return re.sub(r"v1:[0-9a-f]{16}", "HASH", value.replace(namespace, "NAMESPACE"))
    return value


async def end_state(admin: Admin, namespace: str) -> dict[str, Object]:
    """Return every child, and of the controllers' objects how many there are of each owner."""
    found: dict[str, Object] = {}
    for kind in set(RESOURCES) - {names.KIND, "Pod", "Event"}:
        for item in await admin.list(kind, namespace):
            if names.LABEL_INSTANCE not in (item["metadata"].get("labels") or {}):
                continue
            if kind == "Secret":
                data = item["data"]
                assert all(data.values())
                item["data"] = sorted(data)
                if names.KEY_DSN in data:
                    password = b64decode(data[names.KEY_PASSWORD]).decode()
                    assert f":{password}@" in b64decode(data[names.KEY_DSN]).decode()
            found[f"{kind} {item['metadata']['name']}"] = plain(item, namespace)
    answer = await admin.http.get(f"/apis/apps/v1/namespaces/{namespace}/replicasets")
    owners = [one["metadata"]["ownerReferences"][0]["name"] for one in answer.json()["items"]]
    found["template versions"] = {name: owners.count(name) for name in sorted(owners)}
    return found


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
