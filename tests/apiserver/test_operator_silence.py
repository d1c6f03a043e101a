"""A watch that is cut without a word: the connection stays open, and nothing comes any more."""

from __future__ import annotations

import asyncio
import json
import random
import time

import pytest
from fakes import kube_contract
from fakes.apiserver import Admin, until
from fakes.proxy import proxy_to

from chatbot_core import names
from chatbot_core.retry import Clockwork
from chatbot_operator import kube as kube_module
from chatbot_operator.feeders import child_feed, list_watch, scope
from chatbot_operator.heartbeats import Heartbeats
from chatbot_operator.kinds import Object, Ref
from chatbot_operator.kube import connect
from chatbot_operator.model import Child
from chatbot_operator.store import OwnerKey, Store
from localkube.testserver import LoopbackServer


async def test_a_watch_that_falls_silent_is_opened_again_and_misses_nothing(
    server: LoopbackServer,
    admin: Admin,
    namespace: str,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> None:
    if not request.config.getoption("--all"):
        monkeypatch.setattr(kube_module, "WATCH_SILENCE_S", 3.0)
    labels = {names.LABEL_MANAGED_BY: names.MANAGER, names.LABEL_INSTANCE: "chat"}
    obj: Object = kube_contract.config_map(namespace, "seen", "one")
    obj["metadata"]["labels"] = labels
    await admin.create(obj)
    woken: list[OwnerKey] = []
    store: Store[Ref, Child] = Store(woken.append)
    store.expect(scope("ConfigMap", namespace))
    async with proxy_to(server.plane.api_port) as proxy:
        config = json.loads(server.kubeconfig.read_text())
        config["clusters"][0]["cluster"]["server"] = f"https://127.0.0.1:{proxy.port}"
        through = server.plane.state / "proxy.kubeconfig"
        through.write_text(json.dumps(config))
        monkeypatch.setenv("KUBECONFIG", str(through))
        client = await connect()
        feed = child_feed("ConfigMap", namespace, store)
        clockwork = Clockwork(time.monotonic, asyncio.sleep, random.random)
        feeding = asyncio.create_task(
            list_watch(client, feed, Heartbeats(time.monotonic), clockwork)
        )
        await store.until_complete()
        await asyncio.sleep(1)
        proxy.silence()
        await admin.delete(Ref("ConfigMap", namespace, "seen"))
        accepted = proxy.accepted

        async def gone() -> bool:
            return store.get(Ref("ConfigMap", namespace, "seen")) is None

        await until(gone, "the deletion inside the silence", 3.0 * kube_module.WATCH_SILENCE_S)
        assert woken[-1] == (namespace, "chat")
        assert proxy.accepted > accepted
        feeding.cancel()
        await asyncio.gather(feeding, return_exceptions=True)
        await client.close()
