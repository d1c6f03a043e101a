"""Two replicas of the operator as real processes: killed, ended, frozen, without their Lease."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import random
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from fakes import replicas
from fakes.apiserver import Admin, new_namespace, until
from fakes.end_state import end_state
from fakes.objects import cluster, cluster_ref
from fakes.replicas import LEASE, Pair, Replica

from chatbot_core import names
from chatbot_operator import lease
from chatbot_operator.kinds import Object, Ref, object_path
from localkube.api import wait_until
from localkube.testserver import LoopbackServer

OBJECTS = 3
_log = logging.getLogger(__name__)
OPERATORS = f"{names.MANAGER} ("
RENEWAL = f"update leases {LEASE.namespace}/{LEASE.name}"


@pytest.fixture
def namespaces(server: LoopbackServer) -> list[str]:
    return [new_namespace(server) for _ in range(OBJECTS + 1)]


@pytest.fixture
def both(
    server: LoopbackServer, operator_kubeconfig: Path, namespaces: list[str]
) -> Iterator[Pair]:
    with replicas.pair(server, operator_kubeconfig, *namespaces) as running:
        yield running


@dataclass(frozen=True, slots=True)
class Write:
    """One request that changes something: by whom, when the server got it, and what it was."""

    agent: str
    at: str
    what: str
    code: int


def writes(server: LoopbackServer, agent: str) -> list[Write]:
    """Return every write of the operators with that in their user agent, in the server's order."""
    lines = server.audit_log.read_text().rpartition("\n")[0].splitlines()
    entries = [one for one in map(json.loads, lines) if agent in one.get("userAgent", "")]
    return [_write(one, one.get("objectRef") or {}) for one in entries]


def _write(entry: Object, what: Object) -> Write:
    name = f"{what.get('resource')} {what.get('namespace')}/{what.get('name')}"
    code = entry["responseStatus"]["code"]
    at = entry["requestReceivedTimestamp"]
    return Write(entry["userAgent"], at, f"{entry['verb']} {name}", code)


def without_lease(found: list[Write]) -> list[Write]:
    return [one for one in found if " leases " not in one.what]


def quiet(server: LoopbackServer, still_s: float = 2.0, within_s: float = 60.0) -> None:
    """Wait until no operator writes any more."""
    last, since_s, ends_s = -1, time.monotonic(), time.monotonic() + within_s
    while time.monotonic() - since_s < still_s:
        count = len(without_lease(writes(server, OPERATORS)))
        if count != last:
            last, since_s = count, time.monotonic()
        assert time.monotonic() < ends_s, "it never rests"
        time.sleep(0.2)


async def end_as(admin: Admin, namespaces: list[str], model: str) -> None:
    """Wait until all objects have left what the model one has."""
    expected = await end_state(admin, model)

    async def alike() -> bool:
        return all([await end_state(admin, one) == expected for one in namespaces])

    with contextlib.suppress(AssertionError):
        await until(alike, "the same end state", 20)
    for one in namespaces:
        assert await end_state(admin, one) == expected


async def have_written(server: LoopbackServer, identity: str, at_least: int) -> bool:
    return len(without_lease(writes(server, identity))) >= at_least


def freeze(replica: Replica) -> None:
    """Stop it while it waits for answers: a request that is half sent could still arrive."""
    stat = Path(f"/proc/{replica.process.pid}/stat")

    def waits() -> bool:
        return stat.read_text().rpartition(")")[2].split()[0] == "S"

    wait_until(waits, "it waits for answers", 20, lambda: None)
    replica.process.send_signal(signal.SIGSTOP)


async def test_a_leader_killed_while_it_creates_is_replaced_and_nothing_is_missing(
    both: Pair, server: LoopbackServer, admin: Admin, namespaces: list[str]
) -> None:
    identity = both.holder()
    *disturbed, undisturbed = namespaces
    for one in disturbed[:-1]:
        await admin.create(cluster(one))
    at_least = random.randrange(1, 40)
    await until(lambda: have_written(server, identity, at_least), f"{at_least} writes", 20)
    took_s = replicas.take_over_s(both, cluster(disturbed[-1]), signal.SIGKILL)
    _log.info("a killed leader was replaced in %.2f s", took_s)
    assert took_s <= 20, f"killed after {at_least} writes"
    await admin.create(cluster(undisturbed))
    quiet(server)
    await end_as(admin, disturbed, undisturbed)


def test_an_ended_leader_gives_the_lease_back_to_one_that_takes_it_at_once(
    both: Pair, server: LoopbackServer, namespaces: list[str]
) -> None:
    leader, identity = both.leader(), both.holder()
    took_s = replicas.take_over_s(both, cluster(namespaces[0]), signal.SIGTERM)
    _log.info("an ended leader was replaced in %.2f s", took_s)
    assert leader.process.wait(10) == 0, leader.log.read_text()[-2000:]
    # The promised 2 seconds are measured on an idle machine; whoever waits out a lease needs 13.
    assert took_s < lease.DURATION_S - lease.RENEW_EVERY_S
    mine = writes(server, identity)
    released = [one for one in mine if one.what == RENEWAL and one.code == 200][-1]
    assert [one for one in mine if one.at > released.at] == []


async def test_a_leader_frozen_for_longer_than_the_lease_writes_nothing_afterwards(
    both: Pair, server: LoopbackServer, admin: Admin, namespaces: list[str]
) -> None:
    leader, old = both.leader(), both.holder()
    for one in namespaces[:-1]:
        await admin.create(cluster(one))
    await until(lambda: have_written(server, old, 5), "it works", 20)
    freeze(leader)
    wait_until(both.other(leader).leads, "the other leads", 40, lambda: None)
    new = both.holder()
    taken = next(one for one in writes(server, new) if one.what == RENEWAL and one.code == 200)
    await admin.create(cluster(namespaces[-1]))
    for one in namespaces:
        await admin.patch(cluster_ref(one), {"spec": {"retrieval": {"replicasPerShard": 2}}})
    leader.process.send_signal(signal.SIGCONT)
    wait_until(lambda: leader.answers("/readyz") == "ok\n", "it is awake", 20, lambda: None)
    for one in namespaces:
        await admin.patch(cluster_ref(one), {"spec": {"retrieval": {"replicasPerShard": 1}}})
    quiet(server)
    late = [one for one in without_lease(writes(server, old)) if one.at > taken.at]
    assert late == []
    assert both.leader() is both.other(leader)
    await end_as(admin, namespaces[:-1], namespaces[-1])


async def test_a_deleted_lease_is_made_again_by_its_leader(both: Pair, admin: Admin) -> None:
    leader, identity = both.leader(), both.holder()
    await admin.delete(LEASE)
    wait_until(lambda: both.holder() == identity, "the Lease is back", 5, lambda: None)
    await asyncio.sleep(lease.MISSING_S + 1)
    assert (both.leader(), both.holder()) == (leader, identity)


async def test_the_leader_whose_lease_is_written_over_steps_down(
    both: Pair, server: LoopbackServer, admin: Admin
) -> None:
    leader = both.leader()
    await admin.patch(LEASE, {"spec": {"holderIdentity": "somebody"}})
    wait_until(lambda: not leader.leads(), "it steps down", 5, lambda: None)
    assert not any(one.leads() for one in both.replicas)
    both.leader()
    live = server.api.get(object_path(Ref("Lease", LEASE.namespace, LEASE.name)))
    assert live["spec"]["leaseTransitions"] >= 2
