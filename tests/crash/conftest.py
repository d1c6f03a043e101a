"""One real control plane for all trials, with a stub kubelet in place of a node."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from fakes.apiserver import Admin, administrator, new_namespace

from localkube import stubkubelet
from localkube.operated import control_plane, write_operator_kubeconfig
from localkube.stubkubelet import StubKubelet
from localkube.testserver import LoopbackServer


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LoopbackServer]:
    with control_plane(tmp_path_factory.mktemp("crash") / "state") as running:
        yield running


@pytest.fixture(scope="session")
def operator_kubeconfig(server: LoopbackServer) -> Path:
    return write_operator_kubeconfig(server)


@pytest.fixture
def namespace(server: LoopbackServer) -> str:
    return new_namespace(server)


@pytest.fixture
async def admin(server: LoopbackServer) -> AsyncIterator[Admin]:
    async with administrator(server) as hands:
        yield hands


@pytest.fixture
async def stub_kubelet(server: LoopbackServer) -> AsyncIterator[StubKubelet]:
    async with stubkubelet.running(server.url, server.certificates) as kubelet:
        yield kubelet
