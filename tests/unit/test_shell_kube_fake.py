"""The fake keeps the promises that the real client keeps."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest
from fakes import kube_contract
from fakes.kube import FakeKube

from chatbot_operator.kube import Kube


@pytest.mark.parametrize("promise", kube_contract.ALL, ids=lambda p: p.__name__)
async def test_the_fake_keeps_the_promise(promise: Callable[[Kube, str], Awaitable[None]]) -> None:
    await promise(FakeKube(), "default")
