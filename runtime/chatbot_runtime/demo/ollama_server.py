"""A small model behind the part of Ollama's API that the inference proxy uses.

`python -m chatbot_runtime.demo.ollama_server --model FILE.gguf --name NAME --port N`: with it the
demo runs the same proxy and the same client as a cluster does. Protocol: Ollama's `docs/api.md`,
0.9.6; the model is loaded once, at the start, and stays.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import threading
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Literal

import uvloop
from pydantic import BaseModel, Field, ValidationError
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from chatbot_core.errors import ChatbotError, exit_code
from chatbot_runtime import logs
from chatbot_runtime.cli import stop_on_signals
from chatbot_runtime.demo.llama import ChatOptions, Llama, Usage, digest
from chatbot_runtime.internal_http import serve_app

_API_VERSION: Final = "0.9.6"
_NS_PER_MS: Final = 1_000_000


class _ChatMessage(BaseModel):
    role: Literal["system", "user", "assistant"]
    content: str


class _Options(BaseModel):
    temperature: float = 0.8
    num_predict: int = -1
    seed: int = 0
    num_ctx: int = 0


class _ChatRequest(BaseModel):
    model: str
    messages: list[_ChatMessage] = Field(default_factory=list)
    options: _Options = _Options()
    stream: Literal[True] = True


class _Answer:
    """A running answer: a thread writes, a coroutine reads, either may end it."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self.left = threading.Event()
        self.items: asyncio.Queue[str | Usage | ChatbotError] = asyncio.Queue()

    def put(self, item: str | Usage | ChatbotError) -> bool:
        """Hand over an item from the thread; True when nobody reads any more."""
        self._loop.call_soon_threadsafe(self.items.put_nowait, item)
        return self.left.is_set()


class OllamaServer:
    """The routes over one loaded model; a second chat waits for the first, as in Ollama."""

    def __init__(self, llama: Llama, name: str, context_tokens: int, file: tuple[str, int]) -> None:
        """`file` is the model file's SHA-256 and its size in bytes."""
        self._llama = llama
        self._name = name
        self._context_tokens = context_tokens
        self._file = file
        self._one_at_a_time = asyncio.Lock()

    def app(self) -> Starlette:
        """Return the application."""
        return Starlette(
            routes=[
                Route("/api/version", self._version),
                Route("/api/tags", self._models),
                Route("/api/ps", self._models),
                Route("/api/chat", self._chat, methods=["POST"]),
            ]
        )

    async def _version(self, request: Request) -> Response:
        return JSONResponse({"version": _API_VERSION})

    async def _models(self, request: Request) -> Response:
        sha256, size_bytes = self._file
        model = {
            "name": self._name,
            "model": self._name,
            "digest": sha256,
            "size": size_bytes,
            "details": {"format": "gguf"},
            "context_length": self._context_tokens,
        }
        return JSONResponse({"models": [model]})

    async def _chat(self, request: Request) -> Response:
        try:
            asked = _ChatRequest.model_validate_json(await request.body())
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            return _refusal(400, f"{'.'.join(map(str, first['loc']))}: {first['msg']}")
        if asked.model != self._name:
            return _refusal(404, f"model '{asked.model}' not found")
        if asked.options.num_ctx > self._context_tokens:
            return _refusal(400, f"options.num_ctx: at most {self._context_tokens} here")
        return StreamingResponse(self._lines(asked), media_type="application/x-ndjson")

    async def _lines(self, asked: _ChatRequest) -> AsyncIterator[bytes]:
        if not asked.messages:
            yield self._line("", done=True, done_reason="load")
            return
        began_s = time.monotonic()
        async with self._one_at_a_time:
            answer = _Answer()
            thread = asyncio.create_task(asyncio.to_thread(self._run, asked, answer))
            try:
                while isinstance(item := await answer.items.get(), str):
                    yield self._line(item, done=False)
                if isinstance(item, ChatbotError):
                    yield _json({"error": str(item)})
                else:
                    yield self._last_line(item, time.monotonic() - began_s)
            finally:
                answer.left.set()
                await asyncio.shield(thread)

    def _run(self, asked: _ChatRequest, answer: _Answer) -> None:
        options = ChatOptions(
            asked.options.temperature, asked.options.num_predict, asked.options.seed
        )
        try:
            messages = [one.model_dump() for one in asked.messages]
            answer.put(self._llama.chat(messages, options, answer.put))
        except ChatbotError as error:
            answer.put(error)

    def _last_line(self, usage: Usage, total_s: float) -> bytes:
        return self._line(
            "",
            done=True,
            done_reason=usage.reason,
            total_duration=int(total_s * 1000 * _NS_PER_MS),
            load_duration=0,
            prompt_eval_count=usage.prompt_tokens,
            prompt_eval_duration=int(usage.prompt_ms * _NS_PER_MS),
            eval_count=usage.answer_tokens,
            eval_duration=int(usage.answer_ms * _NS_PER_MS),
        )

    def _line(self, text: str, **more: object) -> bytes:
        head = {
            "model": self._name,
            "created_at": datetime.now(UTC).isoformat(),
            "message": {"role": "assistant", "content": text},
        }
        return _json({**head, **more})


def _refusal(status: int, message: str) -> Response:
    return JSONResponse({"error": message}, status_code=status)


def _json(value: dict[str, Any]) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode() + b"\n"


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    one = argparse.ArgumentParser(prog="python -m chatbot_runtime.demo.ollama_server")
    one.add_argument("--model", type=Path, required=True, metavar="FILE.gguf")
    one.add_argument("--name", required=True, help="as requests name the model")
    one.add_argument("--context-tokens", type=int, default=4096)
    one.add_argument("--port", type=int, required=True)
    return one


async def _serve(arguments: argparse.Namespace) -> None:
    stopping = asyncio.Event()
    stop_on_signals(stopping.set)
    llama, sha256 = await asyncio.gather(
        asyncio.to_thread(Llama, arguments.model, arguments.context_tokens),
        asyncio.to_thread(digest, arguments.model),
    )
    file = (sha256, arguments.model.stat().st_size)
    server = OllamaServer(llama, arguments.name, arguments.context_tokens, file)
    async with serve_app(server.app(), "127.0.0.1", arguments.port):
        await stopping.wait()


def main() -> None:
    """Serve until told to stop."""
    arguments = parser().parse_args()
    logs.configure("ollama", arguments.name)
    try:
        uvloop.run(_serve(arguments))
    except ChatbotError as error:
        print(f"model server: {error}", file=sys.stderr)  # noqa: T201 - a person reads it
        sys.exit(exit_code(error))


if __name__ == "__main__":
    main()
