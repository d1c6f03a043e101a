"""The client keeps its promises on a real API server."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest
from fakes import kube_contract

from chatbot_core import names
from chatbot_operator.kube import Kube, KubeClient, WatchExpiredError, WriteRefused
from localkube.testserver import LoopbackServer


@pytest.mark.parametrize("promise", kube_contract.ALL, ids=lambda p: p.__name__)
async def test_the_client_keeps_the_promise(
    promise: Callable[[Kube, str], Awaitable[None]],
    kube: KubeClient,
    namespace: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("chatbot_operator.kube.PAGE", 2)
    await promise(kube, namespace)


async def test_a_misspelt_field_is_refused_by_name(kube: KubeClient, namespace: str) -> None:
    obj = kube_contract.config_map(namespace, "misspelt", "one")
    answer = await kube.apply({**obj, "dta": {}}, names.MANAGER)
    assert isinstance(answer, WriteRefused)
    assert answer.code in {400, 500}
    assert "dta" in answer.message


async def test_after_a_restart_the_server_has_forgotten_old_versions(
    kube: KubeClient, namespace: str, server: LoopbackServer
) -> None:
    for number in range(3):
        await kube.apply(kube_contract.config_map(namespace, "busy", str(number)), "tester")
    server.stop_apiserver()
    server.start_apiserver()
    with pytest.raises(WatchExpiredError):
        async for _ in kube.watch("ConfigMap", namespace, "", "1"):
            pass
