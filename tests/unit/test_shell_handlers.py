"""kopf before a server that refuses its watch, and is started anew."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from aiohttp import web
from fakes.objects import cluster

from chatbot_core import names
from chatbot_operator.handlers import watch_objects
from chatbot_operator.heartbeats import Echo
from chatbot_operator.kinds import Object
from chatbot_operator.observe import World

PATH = f"/apis/{names.API_VERSION}"
KIND = {
    "name": names.PLURAL,
    "singularName": "chatbotcluster",
    "namespaced": True,
    "kind": names.KIND,
    "verbs": ["get", "list", "patch", "watch"],
}
#: kopf waits until it knows this kind.
NAMESPACE = {**KIND, "name": "namespaces", "singularName": "namespace", "kind": "Namespace"}
GROUP = {
    "name": names.GROUP,
    "versions": [{"version": names.VERSION}],
    "preferredVersion": {"version": names.VERSION},
}


@dataclass(slots=True)
class Server:
    """As much of an API server as kopf's watch needs; every watch ends after a moment."""

    objects: list[Object] = field(default_factory=list)
    allowed: bool = True
    refused: asyncio.Event = field(default_factory=asyncio.Event)

    def put(self, name: str) -> None:
        meta = {"uid": name, "resourceVersion": "7", "name": name, "namespace": "ns"}
        self.objects.append({**cluster("ns", name), "metadata": meta})

    async def answer(self, request: web.Request) -> web.StreamResponse:
        if request.path != f"{PATH}/{names.PLURAL}":
            found = {PATH: [KIND], "/api/v1": [NAMESPACE]}.get(request.path, [])
            known = {"versions": ["v1"], "groups": [GROUP], "resources": found}
            return web.json_response(known)
        if not self.allowed:
            self.refused.set()
            return web.json_response({"code": 403, "message": "no right"}, status=403)
        if "watch" not in request.query:
            listed = {"metadata": {"resourceVersion": "9"}, "items": self.objects}
            return web.json_response(listed)
        await asyncio.sleep(0.2)
        return web.Response(text="")


@pytest.fixture
async def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Server]:
    running = Server()
    app = web.Application()
    app.router.add_get("/{path:.*}", running.answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    config = {
        "clusters": [
            {"name": "c", "cluster": {"server": f"http://127.0.0.1:{runner.addresses[0][1]}"}}
        ],
        "users": [{"name": "u", "user": {"token": "t"}}],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
        "current-context": "x",
    }
    path = tmp_path / "kubeconfig"
    path.write_text(json.dumps(config))
    monkeypatch.setenv("KUBECONFIG", str(path))
    yield running
    await runner.cleanup()


async def known(world: World, count: int) -> None:
    async with asyncio.timeout(15):
        while len(world.owners.owners()) < count:  # noqa: ASYNC110 - the store has no event for it
            await asyncio.sleep(0.05)


async def test_a_watch_that_was_refused_is_started_anew_once_lists_are_allowed(
    server: Server,
) -> None:
    world, echo, stop = World(lambda _: None), Echo(), asyncio.Event()
    server.put("one")
    life = asyncio.create_task(watch_objects(world, echo, stop))
    try:
        await known(world, 1)
        server.allowed = False
        await server.refused.wait()
        echo.failed("@")
        server.allowed = True
        server.put("two")
        await asyncio.sleep(1)
        assert len(world.owners.owners()) == 1, "kopf goes on without its watch"
        echo.listed("@", {})
        await known(world, 2)
    finally:
        stop.set()
        async with asyncio.timeout(10):
            await life
