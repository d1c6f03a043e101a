"""The real client against a server that answers wrongly."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from aiohttp import web

from chatbot_core.errors import Unavailable
from chatbot_operator import kube
from chatbot_operator.kinds import Ref
from chatbot_operator.kube import KubeClient, connect

CONFIG = Ref("ConfigMap", "ns", "chat-config")
WHOLE = json.dumps({"metadata": {"name": "chat-config", "resourceVersion": "7"}})


@dataclass(slots=True)
class Server:
    """Gives each answer once, the last one for ever; `asked_s` = when it was asked."""

    answers: list[web.Response] = field(default_factory=list)
    asked_s: list[float] = field(default_factory=list)

    async def serve(self, request: web.BaseRequest) -> web.StreamResponse:
        self.asked_s.append(time.monotonic())
        given = self.answers.pop(0)
        if not self.answers:
            self.answers.append(web.Response(status=given.status, body=given.body))
        return given


@pytest.fixture
async def server() -> AsyncIterator[tuple[Server, int]]:
    served = Server()
    runner = web.ServerRunner(web.Server(served.serve, access_log=None))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield served, int(runner.addresses[0][1])
    await runner.cleanup()


@pytest.fixture
async def client(
    server: tuple[Server, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[KubeClient]:
    where = {"server": f"http://127.0.0.1:{server[1]}"}
    config = {
        "clusters": [{"name": "x", "cluster": where}],
        "users": [{"name": "x", "user": {"token": "x"}}],
        "contexts": [{"name": "x", "context": {"cluster": "x", "user": "x"}}],
        "current-context": "x",
    }
    path = tmp_path / "kubeconfig"
    path.write_text(json.dumps(config))
    monkeypatch.setenv("KUBECONFIG", str(path))
    connected = await connect()
    yield connected
    await connected.close()
    await asyncio.sleep(0)


@pytest.mark.parametrize("body", [WHOLE[:20], "", "[]", "\N{LATIN SMALL LETTER E WITH ACUTE}"])
async def test_half_an_answer_is_none_and_is_asked_for_again(
    body: str, server: tuple[Server, int], client: KubeClient
) -> None:
    server[0].answers = [web.Response(body=body.encode("latin-1")), web.Response(text=WHOLE)]
    assert await client.get(CONFIG) == json.loads(WHOLE)


async def test_answers_that_stay_broken_end_as_unavailable(
    server: tuple[Server, int], client: KubeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kube, "CALL_BUDGET_S", 0.3)
    server[0].answers = [web.Response(text=WHOLE[:20])]
    with pytest.raises(Unavailable, match="no JSON"):
        await client.get(CONFIG)


async def test_a_busy_server_is_left_alone_for_as_long_as_it_says(
    server: tuple[Server, int], client: KubeClient
) -> None:
    busy = web.Response(status=429, headers={"Retry-After": "1"})
    server[0].answers = [busy, web.Response(text=WHOLE)]
    await client.get(CONFIG)
    first_s, second_s = server[0].asked_s
    assert second_s - first_s >= 1.0
