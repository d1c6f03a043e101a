"""Two replicas of the operator as real processes: killed, ended, frozen, without their Lease."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from fakes import replicas
from fakes.apiserver import Admin, new_namespace
from fakes.objects import cluster
from fakes.replicas import LEASE, Pair

from chatbot_operator import lease
from chatbot_operator.kinds import Ref, object_path
from localkube.api import wait_until
from localkube.testserver import LoopbackServer

OBJECTS = 3


@pytest.fixture
def namespaces(server: LoopbackServer) -> list[str]:
    return [new_namespace(server) for _ in range(OBJECTS + 1)]


@pytest.fixture
def both(
    server: LoopbackServer, operator_kubeconfig: Path, namespaces: list[str]
) -> Iterator[Pair]:
    with replicas.pair(server, operator_kubeconfig, *namespaces) as running:
        yield running


def test_an_ended_leader_is_replaced_at_once(both: Pair, namespaces: list[str]) -> None:
    leader = both.leader()
    assert replicas.take_over_s(both, cluster(namespaces[0]), signal.SIGTERM) <= 2.0
    assert leader.process.wait(10) == 0, leader.log.read_text()[-2000:]


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
