"""The runtimes of all objects, behind one address: RuntimeStatus over real HTTP, no service.

The stub kubelet gives every pod this address. Who is asked for is told by the token, which is
another one for each object. A busy object's corpus grows all the time.
"""

from __future__ import annotations

import hashlib
import random
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from http import HTTPStatus
from typing import Final

from aiohttp import web

from chatbot_core import names
from chatbot_core.runtime_config import (
    Member,
    ModelStatus,
    RetrievalStatus,
    RuntimeConfig,
    RuntimeStatus,
    SelfTestResult,
)
from chatbot_operator.desired import config
from chatbot_operator.kinds import Ref
from chatbot_operator.store import OwnerKey, Store

_ADDRESSES: Final = 20
_DOCUMENTS: Final = 12_000
#: Documents that a busy object takes in each second.
_GROWTH_PER_S: Final = 40


@lru_cache(4096)
def _status(document: str) -> RuntimeStatus:
    """Return what a healthy runtime says that runs this document of the ConfigMap."""
    running = RuntimeConfig.model_validate_json(document)
    hashes = config.acknowledgements(running)
    shards = range(running.live.retrieval.shards)
    alone = [(role, None) for role in hashes if role != names.Role.SHARD]
    members = tuple(
        Member(
            role=role,
            name=f"{role}-{shard or 0}",
            config_hash=hashes[role],
            ready=True,
            shard=shard,
        )
        for role, shard in [*alone, *((names.Role.SHARD.value, i) for i in shards)]
    )
    wanted = running.live.self_test.wanted
    return RuntimeStatus(
        schema_version=1,
        members=members,
        retrieval=RetrievalStatus(generation=1, slot_map_epoch=1, documents=_DOCUMENTS),
        model=ModelStatus(name=running.live.inference.model, digest="sha256:1", loaded=True),
        self_test=SelfTestResult(wanted=wanted, passed=bool(wanted)),
    )


@dataclass(slots=True)
class Runtimes:
    """`documents` and `tokens` are the text of each object's ConfigMap and its internal token."""

    documents: Store[Ref, str]
    tokens: Store[Ref, str]
    busy: set[OwnerKey] = field(default_factory=set)
    asked: int = 0
    address: str = ""
    _owners: dict[str, OwnerKey] = field(default_factory=dict)

    def _owner(self, token: str) -> OwnerKey | None:
        if token not in self._owners:
            self._owners = {
                found: owner
                for owner in self.tokens.owners()
                for found in self.tokens.of_owner(owner).values()
            }
        return self._owners.get(token)

    async def answer(self, request: web.Request) -> web.Response:
        """Answer `/internal/status` as an API pod of the object does."""
        self.asked += 1
        token = request.headers.get("Authorization", "").removeprefix("Bearer ")
        owner = self._owner(token)
        held = {} if owner is None else self.documents.of_owner(owner)
        if not held:
            return web.Response(status=HTTPStatus.UNAUTHORIZED)
        (document,) = held.values()
        status = _status(document)
        if owner in self.busy:
            grown = _DOCUMENTS + int(time.monotonic() * _GROWTH_PER_S)
            corpus = status.retrieval.model_copy(update={"documents": grown})
            status = status.model_copy(update={"retrieval": corpus})
        body = status.model_dump_json()
        tag = f'"{hashlib.sha256(body.encode()).hexdigest()[:32]}"'
        if request.headers.get("If-None-Match") == tag:
            return web.Response(status=HTTPStatus.NOT_MODIFIED, headers={"ETag": tag})
        return web.Response(text=body, content_type="application/json", headers={"ETag": tag})


@asynccontextmanager
async def serving(runtimes: Runtimes) -> AsyncIterator[None]:
    """Serve at a loopback address of our own, at the port where pods are asked."""
    app = web.Application()
    app.router.add_get("/internal/status", runtimes.answer)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    try:
        runtimes.address = await _bound(runner)
        yield
    finally:
        await runner.cleanup()


async def _bound(runner: web.AppRunner) -> str:
    for attempt in range(_ADDRESSES):
        # The whole network 127.0.0.0/8 is the loopback: somebody else may sit on one address.
        numbers = [random.randrange(2, 250) for _ in range(3)]  # noqa: S311 - no secret
        address = "127." + ".".join(str(number) for number in numbers)
        try:
            await web.TCPSite(runner, address, names.PORT_INTERNAL).start()
        except OSError:
            if attempt == _ADDRESSES - 1:
                raise
        else:
            return address
    raise AssertionError
