"""One real etcd, kube-apiserver and kube-controller-manager for all tests of this layer.

The operator runs in the test's own loop, as its ServiceAccount with the rights of
`deploy/operator.yaml`; the audit log says what it wrote. There is no kubelet: pods stay pending.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from fakes.apiserver import Admin, Running, StartOperator, administrator, new_namespace
from fakes.objects import SETTINGS
from fakes.runtime import FakeRuntime

from chatbot_operator.kube import KubeClient, connect
from chatbot_operator.main import Operator, Process
from chatbot_operator.plan import plan
from chatbot_operator.telemetry import Telemetry
from localkube.operated import control_plane, write_operator_kubeconfig
from localkube.testserver import LoopbackServer


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LoopbackServer]:
    with control_plane(tmp_path_factory.mktemp("operator") / "state") as running:
        yield running


@pytest.fixture(scope="session")
def operator_kubeconfig(server: LoopbackServer) -> Path:
    return write_operator_kubeconfig(server)


@pytest.fixture
def namespace(server: LoopbackServer) -> str:
    """A fresh namespace; nobody else's objects are in it."""
    return new_namespace(server)


@pytest.fixture
async def kube(
    server: LoopbackServer, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[KubeClient]:
    """The operator's own client, as the administrator."""
    monkeypatch.setenv("KUBECONFIG", str(server.kubeconfig))
    connected = await connect(user_agent="a-test")
    try:
        yield connected
    finally:
        await connected.close()


@pytest.fixture
async def admin(server: LoopbackServer) -> AsyncIterator[Admin]:
    async with administrator(server) as hands:
        yield hands


@pytest.fixture
def start_operator(
    server: LoopbackServer, operator_kubeconfig: Path, monkeypatch: pytest.MonkeyPatch
) -> StartOperator:
    """Return a context manager that runs an operator for the named namespaces."""

    @asynccontextmanager
    async def start(*namespaces: str, operator_class: str = "") -> AsyncIterator[Running]:
        monkeypatch.setenv("KUBECONFIG", str(operator_kubeconfig))
        telemetry, runtime, stop = Telemetry(), FakeRuntime(), asyncio.Event()
        kube = await connect(telemetry.on_call)
        process = Process(SETTINGS, namespaces, port=0, operator_class=operator_class)
        operator = Operator(process, kube, runtime, plan, telemetry)
        life = asyncio.create_task(operator.run(stop))
        running = Running(operator, runtime, server, namespaces)
        running.forget_writes()
        try:
            async with asyncio.timeout(30):
                await operator.world.until_complete()
            yield running
        finally:
            stop.set()
            await life
            await kube.close()

    return start
