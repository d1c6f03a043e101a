"""Client of one Ollama server; used by the inference proxy before it and by nothing else.

Protocol: Ollama's `docs/api.md` and `api/types.go`, version 0.9.6. Streams are NDJSON; a failure in
the middle of one is a line `{"error": ...}` under status 200. Durations are nanoseconds.
"""

from __future__ import annotations

import contextlib
import json
import ssl
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import httpx

from chatbot_core.errors import Busy, ChatbotError, Invalid, NotFound, Unavailable
from chatbot_runtime.domain.model import (
    AnswerEnd,
    GenerationOptions,
    Message,
    PullProgress,
    ServedModel,
    Token,
)

_WHAT: Final = "Ollama"
_NS: Final = 1e9
_CONNECT_S: Final = 2.0
#: Loading tens of gigabytes from a slow disk takes minutes; Ollama's own limit is 5 of them.
_LOAD_S: Final = 330.0
_KEEP_FOREVER: Final = -1
_KEEP_A_WHILE: Final = "5m"


def canonical(model: str) -> str:
    """Return a model's name as Ollama lists it: a missing tag is `latest`."""
    return model if ":" in model.rsplit("/", 1)[-1] else f"{model}:latest"


@dataclass(frozen=True, slots=True)
class Trust:
    """How a server is known and how it knows us, read anew for each request (rotation).

    `token` is its bearer token, "" for none; `ca` the PEM text that its certificate must lead
    to, "" for the authorities that this system trusts.
    """

    token: Callable[[], str] = str
    ca: Callable[[], str] = str


class Ollama:
    """`ports.ModelServer` over HTTP. Time limits between two bytes of a stream are the caller's."""

    def __init__(self, url: str, trust: Trust | None = None) -> None:
        self._url = url
        self._trust = trust or Trust()
        self._ca = ""
        self._http: httpx.AsyncClient | None = None
        self._former: list[httpx.AsyncClient] = []

    async def close(self) -> None:
        """Close all connections."""
        for client in (*self._former, *([self._http] if self._http else [])):
            await client.aclose()

    async def find(self, model: str) -> ServedModel | None:
        """Return the model as it lies on its disk, None where it does not."""
        body = await self._get("/api/tags")
        for one in body.get("models") or ():
            if one.get("name") == canonical(model):
                return ServedModel(model, str(one.get("digest", "")), int(one.get("size", 0)))
        return None

    async def is_loaded(self, model: str) -> bool:
        """Say whether the model is in memory now."""
        body = await self._get("/api/ps")
        return canonical(model) in {str(one["name"]) for one in body.get("models") or ()}

    async def pull(self, model: str) -> AsyncGenerator[PullProgress, None]:
        """Download a model; layers are summed as they become known."""
        layers: dict[str, tuple[int, int]] = {}
        request = {"model": model, "stream": True}
        async with contextlib.aclosing(self._lines("/api/pull", request, _LOAD_S)) as lines:
            async for line in lines:
                if line.get("status") == "success":
                    return
                if digest := line.get("digest"):
                    layers[digest] = (int(line.get("completed", 0)), int(line.get("total", 0)))
                    yield PullProgress(
                        sum(done for done, _ in layers.values()),
                        sum(total for _, total in layers.values()),
                    )
        raise Unavailable(_WHAT, f"the download of {model} ended before it was complete")

    async def load(self, model: str, context_tokens: int, keep_loaded: bool) -> None:
        """Bring the model into memory with an empty chat.

        The context size is the one of later chats: another one would load the model again.
        """
        request = {
            "model": model,
            "messages": [],
            "stream": True,
            "keep_alive": _keep_alive(keep_loaded),
            "options": {"num_ctx": context_tokens},
        }
        async with contextlib.aclosing(self._lines("/api/chat", request, _LOAD_S)) as lines:
            async for _ in lines:
                pass

    async def chat(
        self, messages: Sequence[Message], options: GenerationOptions, keep_loaded: bool | None
    ) -> AsyncGenerator[Token | AnswerEnd, None]:
        """Yield tokens numbered from 1, then one AnswerEnd with Ollama's own counts and times."""
        keep = {} if keep_loaded is None else {"keep_alive": _keep_alive(keep_loaded)}
        request = {
            "model": options.model,
            "messages": [{"role": one.role, "content": one.content} for one in messages],
            "stream": True,
            **keep,
            "options": {
                "temperature": options.temperature_percent / 100,
                "num_predict": options.max_output_tokens,
                "seed": options.seed,
                "num_ctx": options.context_tokens,
            },
        }
        sent = 0
        async with contextlib.aclosing(self._lines("/api/chat", request, None)) as lines:
            async for line in lines:
                text = str((line.get("message") or {}).get("content") or "")
                if text:
                    sent += 1
                    yield Token(sent, text)
                if line.get("done"):
                    yield _end(line, sent)
                    return
        raise Unavailable(_WHAT, "the answer ended without its last line")

    async def _get(self, path: str) -> dict[str, Any]:
        try:
            response = await self._client().get(path, headers=self._headers())
        except httpx.HTTPError as error:
            raise _no_answer(error) from error
        if response.status_code != httpx.codes.OK:
            raise _failure(response.status_code, response.content)
        return _json_object(response.content)

    async def _lines(
        self, path: str, request: Mapping[str, Any], read_s: float | None
    ) -> AsyncGenerator[dict[str, Any], None]:
        timeout = httpx.Timeout(read_s, connect=_CONNECT_S)
        try:
            async with self._client().stream(
                "POST", path, json=request, timeout=timeout, headers=self._headers()
            ) as response:
                if response.status_code != httpx.codes.OK:
                    raise _failure(response.status_code, await response.aread())
                async for raw in response.aiter_lines():
                    line = _json_object(raw.encode())
                    if "error" in line:
                        raise Unavailable(_WHAT, str(line["error"])[:200])
                    yield line
        except httpx.HTTPError as error:
            raise _no_answer(error) from error

    def _headers(self) -> dict[str, str]:
        token = self._trust.token()
        return {"Authorization": f"Bearer {token}"} if token else {}

    def _client(self) -> httpx.AsyncClient:
        """Return the client that trusts the authorities of now.

        One that trusted former ones ends the answers that it has begun.
        """
        ca = self._trust.ca()
        if self._http is None or ca != self._ca:
            made = _make_client(self._url, ca)
            self._former += [self._http] if self._http else []
            self._http, self._ca = made, ca
        return self._http


def _make_client(url: str, ca: str) -> httpx.AsyncClient:
    try:
        verify: ssl.SSLContext | bool = ssl.create_default_context(cadata=ca) if ca else True
    except ssl.SSLError as error:
        why = f"the CA of its caSecretRef is no PEM certificate: {error.reason}"
        raise Unavailable(_WHAT, why) from None
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=8)
    timeout = httpx.Timeout(10.0, connect=_CONNECT_S)
    return httpx.AsyncClient(base_url=url, timeout=timeout, limits=limits, verify=verify)


def _no_answer(error: httpx.HTTPError) -> Unavailable:
    """Return the failure without addresses; a certificate is named, since it has a cure."""
    if "CERTIFICATE_VERIFY_FAILED" in str(error):
        return Unavailable(_WHAT, "its certificate is not trusted: check caSecretRef")
    return Unavailable(_WHAT, type(error).__name__)


def _keep_alive(keep_loaded: bool) -> int | str:
    return _KEEP_FOREVER if keep_loaded else _KEEP_A_WHILE


def _end(line: Mapping[str, Any], sent: int) -> AnswerEnd:
    reason = str(line.get("done_reason") or "stop")
    # An answer that ended by itself ends with a token that is counted and never sent
    # (Ollama 0.9.6, runner/llamarunner/runner.go: numDecoded grows before TokenIsEog is asked).
    decoded = int(line.get("eval_count") or 0) - (reason == "stop")
    first_ns = int(line.get("load_duration") or 0) + int(line.get("prompt_eval_duration") or 0)
    return AnswerEnd(
        reason=reason,
        prompt_tokens=int(line.get("prompt_eval_count") or 0),
        answer_tokens=decoded if decoded > 0 else sent,
        first_token_s=first_ns / _NS,
        total_s=int(line.get("total_duration") or 0) / _NS,
        model=str(line.get("model") or ""),
    )


def _failure(status: int, content: bytes) -> ChatbotError:
    try:
        message = str(_json_object(content).get("error") or status)[:200]
    except Unavailable:
        message = f"status {status}"
    if status in {httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN}:
        return Unavailable(_WHAT, f"it refuses us with status {status}: check tokenSecretRef")
    if status == httpx.codes.NOT_FOUND:
        return NotFound(f"{_WHAT} does not hold the model: {message}")
    if status == httpx.codes.BAD_REQUEST:
        return Invalid("request to Ollama", message, "one that this version of Ollama knows")
    if status in {httpx.codes.TOO_MANY_REQUESTS, httpx.codes.SERVICE_UNAVAILABLE}:
        return Busy(_WHAT, 1.0)
    return Unavailable(_WHAT, message)


def _json_object(content: bytes) -> dict[str, Any]:
    try:
        value = json.loads(content)
    except ValueError:
        raise Unavailable(_WHAT, "it sent something that is not JSON") from None
    if not isinstance(value, dict):
        raise Unavailable(_WHAT, "it sent JSON that is not an object")
    return value
