"""The proxy between one operator and the API server: numbers everything, and breaks one thing.

Plain HTTP/1.1 to the operator, TLS to the server. Beside the API it serves the internal port of
the fake runtime, so that the operator's real client asks it.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from random import Random
from typing import Any

import aiohttp
from aiohttp import web
from crash.harness import faults, positions
from crash.harness.faults import Answer, Fault, Kill, Stream
from crash.harness.positions import Ledger, Position, What

from chatbot_core import names

DELAY_S = 0.5
#: Time for an answered operator to read its answer before it is killed.
READ_S = 0.02
_HOP_BY_HOP = {"Host", "Connection", "Transfer-Encoding", "Content-Length", "Content-Encoding"}
_NEVER_S = 3600.0


@dataclass(frozen=True, slots=True)
class Write:
    """One write that the API server answered."""

    what: What
    status: int


@dataclass(slots=True)
class Proxy:
    """One operator's way to the API server. `arm` sets the one fault of a trial."""

    server: aiohttp.ClientSession
    runtime: Callable[[], Awaitable[str]]
    kill: Callable[[], Awaitable[None]]
    port: int = 0
    requests: Ledger = field(default_factory=Ledger)
    events: Ledger = field(default_factory=Ledger)
    writes: list[Write] = field(default_factory=list)
    statuses: Counter[int] = field(default_factory=Counter)
    last_write_s: float = 0.0
    watched: set[str] = field(default_factory=set)
    #: What the pods mount: RuntimeConfig as the operator wrote it last.
    document: str = ""
    fired: str = ""
    _position: Position | None = None
    _fault: Fault | None = None
    _noise: Random | None = None
    _share: float = 0.0
    _life: int = 0
    _dying: bool = False
    _dead: asyncio.Event = field(default_factory=asyncio.Event)

    def reset(self) -> None:
        """Count from here on, without a fault."""
        self.requests, self.events = Ledger(), Ledger()
        self.writes, self.statuses = [], Counter()
        self.fired, self._position, self._fault, self._noise = "", None, None, None
        self.last_write_s = time.monotonic()

    def arm(self, position: Position, fault: Fault) -> None:
        """Break this position, once."""
        self._position, self._fault = position, fault

    def make_noise(self, seed: int, share: float) -> None:
        """Break this share of all answers, drawn from the seed, until `reset`."""
        self._noise, self._share = Random(seed), share

    @property
    def may_end_the_process(self) -> bool:
        """Whether the fault met the library that watches the objects: it ends on some of them."""
        what = self._position.what if self._position is not None else None
        library = what is not None and what.kind == names.KIND and what.verb in {"list", "watch"}
        return bool(self.fired) and (library or self._noise is not None)

    def written(self) -> list[Position]:
        return [position for position in self.requests.seen if position.what.is_write]

    async def serve(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer one request of the operator."""
        if request.path == "/internal/status":
            return web.Response(text=await self.runtime(), content_type="application/json")
        body = await request.read()
        watches = request.query.get("watch") in {"1", "true"}
        answering = self._answer(request, body, watches=watches)
        # A dead operator's watches end with it; what it asked for is carried out all the same.
        return await (answering if watches else asyncio.shield(asyncio.create_task(answering)))

    async def _answer(
        self, request: web.BaseRequest, body: bytes, *, watches: bool
    ) -> web.StreamResponse:
        life = self._life
        what = positions.of_request(request.method, request.path, watches, body)
        if what is None:
            return await self._pass(request, body, None)
        if self._dying:
            await self._dead.wait()
        if life != self._life:
            return _broken(request)
        position = self.requests.enter(what)
        if what.is_write:
            self.last_write_s = time.monotonic()
        fault = self._strike(position)
        if watches:
            return await self._watched(request, what, fault)
        match fault:
            case Kill():
                return await self._killed(request, body, what, fault)
            case Answer():
                return await self._answered(request, body, what, fault)
            case _:
                return await self._pass(request, body, what)

    async def _watched(
        self, request: web.BaseRequest, what: What, fault: Fault | None
    ) -> web.StreamResponse:
        if isinstance(fault, Answer) and fault not in faults.FORWARDED:
            return await self._answered(request, b"", what, fault)
        return _broken(request) if fault else await self._stream(request, what.kind)

    def _strike(self, position: Position) -> Fault | None:
        if position == self._position and not self.fired:
            self.fired = str(position)
            return self._fault
        if self._noise is not None and self._noise.random() < self._share:
            self.fired = "noise"
            usual = list(Answer) if position.what.is_write else faults.READ_ANSWERS
            return self._noise.choice(usual)
        return None

    async def _killed(
        self, request: web.BaseRequest, body: bytes, what: What, when: Kill
    ) -> web.StreamResponse:
        self._dying = True
        self._dead.clear()
        answer: web.StreamResponse = _broken(request) if when is Kill.BEFORE else web.Response()
        if when is not Kill.BEFORE:
            answer = await self._pass(request, body, what)
        if when is Kill.AFTER:
            await answer.prepare(request)
            await answer.write_eof()
            await asyncio.sleep(READ_S)
        await self.kill()
        self._life += 1
        self._dying = False
        self._dead.set()
        return answer if when is Kill.AFTER else _broken(request)

    async def _answered(
        self, request: web.BaseRequest, body: bytes, what: What, fault: Answer
    ) -> web.StreamResponse:
        answer = web.Response()
        if fault in faults.FORWARDED:
            answer = await self._pass(request, body, what)
        if fault in faults.STATUS:
            return _status(fault)
        if fault is Answer.TRUNCATED:
            whole = answer.body or b""
            half = bytes(whole)[: len(bytes(whole)) // 2]
            return web.Response(status=answer.status, body=half, content_type="application/json")
        if fault is Answer.RESET:
            whole = bytes(answer.body or b"")
            broken = web.StreamResponse(status=answer.status)
            broken.content_length = len(whole)
            await broken.prepare(request)
            await broken.write(whole[: len(whole) // 2])
            return _broken(request)
        await _until_closed(request)
        return _broken(request)

    async def _pass(self, request: web.BaseRequest, body: bytes, what: What | None) -> web.Response:
        async with self._ask(request, body) as answer:
            content = await answer.read()
        self.statuses[answer.status] += 1
        if what is not None and what.is_write:
            self.last_write_s = time.monotonic()
            self.writes.append(Write(what, answer.status))
            if what.kind == "ConfigMap" and answer.status < 300:
                self.document = json.loads(content)["data"][names.CONFIG_KEY]
        kept = {k: v for k, v in answer.headers.items() if k in {"Content-Type", "Retry-After"}}
        return web.Response(status=answer.status, body=content, headers=kept)

    def _ask(self, request: web.BaseRequest, body: bytes) -> Any:
        headers = {k: v for k, v in request.headers.items() if k.title() not in _HOP_BY_HOP}
        return self.server.request(
            request.method, request.path_qs, data=body or None, headers=headers
        )

    async def _stream(self, request: web.BaseRequest, kind: str) -> web.StreamResponse:
        async with self._ask(request, b"") as answer:
            if answer.status != 200:
                return web.Response(status=answer.status, body=await answer.read())
            stream = web.StreamResponse(headers={"Content-Type": "application/json"})
            await stream.prepare(request)
            self.watched.add(kind)
            try:
                async for line in self._events(kind, answer.content):
                    await stream.write(line)
            except (aiohttp.ClientError, ConnectionError):
                return _broken(request)
            return stream

    async def _events(self, kind: str, lines: aiohttp.StreamReader) -> AsyncIterator[bytes]:
        sent: list[bytes] = []
        held: list[bytes] = []
        async for line in lines:
            fault = self._fate(positions.of_event(kind, json.loads(line)))
            sent.append(line)
            if fault is Stream.EXPIRE:
                yield _expired()
                return
            if fault is Stream.REORDER:
                held.append(line)
                continue
            for one in await _instead(line, sent, fault):
                yield one
            while held:
                yield held.pop()

    def _fate(self, what: What) -> Fault | None:
        if what.verb not in {"ADDED", "MODIFIED", "DELETED"}:
            return None
        position = self.events.enter(what)
        if position == self._position and not self.fired:
            self.fired = str(position)
            return self._fault
        return None


async def _instead(line: bytes, sent: list[bytes], fault: Fault | None) -> list[bytes]:
    """Return what a watch tells in place of one event, at the time when it does."""
    match fault:
        case Stream.DROP:
            return []
        case Stream.STALL:
            await asyncio.sleep(_NEVER_S)
        case Stream.DELAY:
            await asyncio.sleep(DELAY_S)
        case Stream.DUPLICATE:
            return [line, line]
        case Stream.REPLAY:
            return [line, *sent]
    return [line]


def _broken(request: web.BaseRequest) -> web.Response:
    if request.transport is not None:
        request.transport.abort()
    return web.Response(status=500)


async def _until_closed(request: web.BaseRequest) -> None:
    for _ in range(int(_NEVER_S / READ_S)):
        if request.transport is None or request.transport.is_closing():
            return
        await asyncio.sleep(READ_S)


def _status(fault: Answer) -> web.Response:
    code, reason = faults.STATUS[fault]
    body = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code}
    words = {"reason": reason, "message": f"the proxy says {fault}"}
    headers = {"Retry-After": "1"} if fault is Answer.BUSY_FOR_A_SECOND else {}
    return web.json_response({**body, **words}, status=code, headers=headers)


def _expired() -> bytes:
    told = {"kind": "Status", "apiVersion": "v1", "code": 410, "reason": "Expired"}
    return json.dumps({"type": "ERROR", "object": told}).encode() + b"\n"


@asynccontextmanager
async def serving(proxy: Proxy) -> AsyncIterator[Proxy]:
    """Serve the proxy on a free port while the context is open."""
    runner = web.ServerRunner(
        web.Server(proxy.serve, handler_cancellation=True, access_log=None), shutdown_timeout=0.1
    )
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        proxy.port = int(runner.addresses[0][1])
        yield proxy
    finally:
        await runner.cleanup()
