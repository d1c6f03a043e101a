"""An Ollama of fixed timing that fails on command; the contract is version 0.9.6's.

What it takes over on purpose: a client that leaves while its prompt is read keeps its slot until
the first token, requests beyond `parallel` wait inside without a bound, another context size loads
the model again, the token that ends an answer is counted though never sent, and a failure in the
middle of an answer is a line under status 200.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from chatbot_runtime.internal_http import serve_app

MODEL = "smollm2:135m"
DIGEST = "a" * 64
SIZE_BYTES = 91_000_000


@dataclass
class FakeOllama:
    parallel: int = 2
    first_token_s: float = 0.0
    token_s: float = 0.0
    answer: tuple[str, ...] = ("The ", "valve ", "opens ", "at ", "7 bar.")
    models: set[str] = field(default_factory=lambda: {MODEL})
    pullable: set[str] = field(default_factory=lambda: {MODEL})
    fail_after_tokens: int | None = None
    refuse_chats_with: int | None = None
    loaded: dict[str, int] = field(default_factory=dict)
    loads: int = 0
    pulls: int = 0
    token: str = ""
    inside: int = 0
    most_inside: int = 0
    closed_early: int = 0
    chats: list[dict[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._slots = asyncio.Semaphore(self.parallel)

    @contextlib.asynccontextmanager
    async def serving(self, port: int = 0) -> AsyncIterator[str]:
        """Serve inside the context; its end cuts every running answer, as a kill does."""
        self.loaded.clear()
        app = Starlette(
            routes=[
                Route("/api/version", lambda _: JSONResponse({"version": "0.9.6"})),
                Route("/api/tags", self._tags),
                Route("/api/ps", self._ps),
                Route("/api/pull", self._pull, methods=["POST"]),
                Route("/api/chat", _Chat(self)),
            ]
        )
        guarded = _Guarded(self, app)
        async with serve_app(guarded, "127.0.0.1", port, drain_s=0) as real_port:
            yield f"http://127.0.0.1:{real_port}"

    async def _tags(self, request: Request) -> Response:
        return JSONResponse({"models": [_model(name) for name in sorted(self.models)]})

    async def _ps(self, request: Request) -> Response:
        return JSONResponse({"models": [_model(name) for name in sorted(self.loaded)]})

    async def _pull(self, request: Request) -> Response:
        name = (await request.json())["model"]
        self.pulls += 1

        async def lines() -> AsyncIterator[bytes]:
            yield _line({"status": "pulling manifest"})
            if name not in self.pullable:
                yield _line({"error": "pull model manifest: file does not exist"})
                return
            for done in (0, SIZE_BYTES // 2, SIZE_BYTES):
                layer = {"digest": f"sha256:{DIGEST}", "total": SIZE_BYTES, "completed": done}
                yield _line({"status": f"pulling {DIGEST[:12]}", **layer})
            self.models.add(name)
            yield _line({"status": "success"})

        return StreamingResponse(lines(), media_type="application/x-ndjson")

    async def chat(self, asked: dict[str, Any], scope: Scope, receive: Receive, send: Send) -> None:
        self.chats.append(asked)
        if self.refuse_chats_with is not None:
            refusal = JSONResponse({"error": "on command"}, self.refuse_chats_with)
            await refusal(scope, receive, send)
            return
        if asked["model"] not in self.models:
            refusal = JSONResponse({"error": f"model '{asked['model']}' not found"}, 404)
            await refusal(scope, receive, send)
            return
        self._load(asked["model"], asked["options"]["num_ctx"])
        self.inside += 1
        self.most_inside = max(self.most_inside, self.inside)
        try:
            async with self._slots:
                await self._answer(asked, Request(scope, receive), send)
        finally:
            self.inside -= 1

    def _load(self, model: str, context_tokens: int) -> None:
        if self.loaded.get(model) != context_tokens:
            self.loads += 1
            self.loaded[model] = context_tokens

    async def _answer(self, asked: dict[str, Any], request: Request, send: Send) -> None:
        head = {"model": asked["model"], "created_at": "2026-01-01T00:00:00Z"}
        pieces = self.answer[: asked["options"].get("num_predict", 0)] if asked["messages"] else ()
        if asked["messages"]:
            await asyncio.sleep(self.first_token_s)
        headers = [(b"content-type", b"application/x-ndjson")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        for n, piece in enumerate(pieces):
            if await request.is_disconnected():
                self.closed_early += 1
                return
            if n == self.fail_after_tokens:
                await _write(send, {"error": "llama runner process has terminated"}, more=False)
                return
            message = {"role": "assistant", "content": piece}
            await _write(send, {**head, "message": message, "done": False})
            await asyncio.sleep(self.token_s)
        await _write(
            send, {**head, **_end(asked, len(pieces), complete=pieces == self.answer)}, more=False
        )


class _Guarded:
    """The reverse proxy that people put before an Ollama: it asks for a bearer token."""

    def __init__(self, ollama: FakeOllama, app: ASGIApp) -> None:
        self._ollama = ollama
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        told = Request(scope, receive).headers.get("authorization", "")
        token = self._ollama.token
        if token and told != f"Bearer {token}":
            await JSONResponse({"error": "unauthorized"}, 401)(scope, receive, send)
            return
        await self._app(scope, receive, send)


class _Chat:
    def __init__(self, ollama: FakeOllama) -> None:
        self._ollama = ollama

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        asked = await Request(scope, receive).json()
        await self._ollama.chat(asked, scope, receive, send)


def _end(asked: dict[str, Any], tokens: int, *, complete: bool) -> dict[str, Any]:
    message = {"role": "assistant", "content": ""}
    if not asked["messages"]:
        return {"message": message, "done": True, "done_reason": "load"}
    words = sum(len(one["content"].split()) for one in asked["messages"])
    return {
        "message": message,
        "done": True,
        "done_reason": "stop" if complete else "length",
        "total_duration": 2_000_000_000,
        "load_duration": 1_000_000,
        "prompt_eval_count": words,
        "prompt_eval_duration": 500_000_000,
        "eval_count": tokens + complete,
        "eval_duration": 1_400_000_000,
    }


def _model(name: str) -> dict[str, Any]:
    return {"name": name, "model": name, "digest": DIGEST, "size": SIZE_BYTES}


def _line(value: dict[str, Any]) -> bytes:
    return json.dumps(value).encode() + b"\n"


async def _write(send: Send, value: dict[str, Any], *, more: bool = True) -> None:
    await send({"type": "http.response.body", "body": _line(value), "more_body": more})
