"""The client asks the fence before every single request that writes, also before a repeated one."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import aiohttp
import pytest
from fakes.objects import cluster, cluster_ref

from chatbot_core.errors import Denied
from chatbot_operator.fence import Fence
from chatbot_operator.kinds import Object, Ref
from chatbot_operator.kube import KubeClient

NEWS: Object = {
    "apiVersion": "events.k8s.io/v1",
    "kind": "Event",
    "metadata": {"name": "a", "namespace": "ns"},
}


@dataclass(slots=True)
class BrokenServer:
    """The generated client, before a server whose connections break; counts and times requests."""

    left_s: float
    sent: list[tuple[str, float]] = field(default_factory=list)

    async def param_serialize(self, method: str, path: str, **_: Any) -> tuple[Any, ...]:
        return method, path, {}, None, None

    async def call_api(self, method: str, *_: Any, _request_timeout: aiohttp.ClientTimeout) -> None:
        self.sent.append((method, _request_timeout.total or 0.0))
        self.left_s = 0.0
        raise aiohttp.ClientConnectionError("broken")


class FrozenWhileItSerializes(BrokenServer):
    """The lease is over when the request has been made."""

    async def param_serialize(self, method: str, path: str, **_: Any) -> tuple[Any, ...]:
        self.left_s = 0.0
        return method, path, {}, None, None


def client_of(server: BrokenServer) -> KubeClient:
    return KubeClient(server, lambda *_: None, Fence(lambda: server.left_s))


async def test_a_repeated_write_asks_again_whether_it_may() -> None:
    server = BrokenServer(left_s=4.5)
    with pytest.raises(Denied):
        await client_of(server).apply(cluster("ns"), "tester")
    assert server.sent == [("PATCH", 4.5)]


async def test_without_the_lease_no_kind_of_write_is_sent() -> None:
    server = BrokenServer(left_s=0.0)
    kube = client_of(server)
    obj = {**cluster("ns"), "status": {}}
    for write in (
        kube.apply(obj, "tester"),
        kube.apply_status(obj),
        kube.replace(obj),
        kube.create(NEWS),
        kube.delete(Ref("ConfigMap", "ns", "a"), "uid", "7"),
    ):
        with pytest.raises(Denied, match="another process leads"):
            await write
    assert server.sent == []


async def test_a_process_frozen_while_it_makes_a_request_does_not_send_it() -> None:
    server = FrozenWhileItSerializes(left_s=4.5)
    with pytest.raises(Denied, match="another process leads"):
        await client_of(server).apply(cluster("ns"), "tester")
    assert server.sent == []


async def test_reads_need_no_lease(monkeypatch: pytest.MonkeyPatch) -> None:
    server = BrokenServer(left_s=0.0)
    monkeypatch.setattr("chatbot_operator.kube.CALL_BUDGET_S", 0.0)
    with pytest.raises(Exception, match="broken"):
        await client_of(server).get(cluster_ref("ns"))
    assert server.sent == [("GET", 10.0)]
