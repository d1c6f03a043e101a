"""HTTP of the inference proxy: parse, call one service, shape the answer.

A raw ASGI endpoint, because a client that leaves must be noticed between two tokens too; the
framework's streaming response notices it at the next write only.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import logging
import math
from collections.abc import Callable, Coroutine
from typing import Any, Final

from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from chatbot_core.errors import (
    ChatbotError,
    TooLarge,
    Unauthenticated,
    Unavailable,
    http_status,
)
from chatbot_runtime.domain import inference_wire as wire
from chatbot_runtime.services.inference import InferenceQueue

log = logging.getLogger(__name__)

_HEADERS: Final = {wire.VERSION_HEADER: str(wire.VERSION)}
_STREAM_HEADERS: Final = [
    (b"content-type", b"application/x-ndjson"),
    (b"cache-control", b"no-store"),
    (wire.VERSION_HEADER.encode(), str(wire.VERSION).encode()),
]


class GenerateEndpoint:
    """`POST /v1/generate`; see `domain.inference_wire` for the protocol."""

    def __init__(
        self,
        inference: InferenceQueue,
        ready: Callable[[], tuple[bool, str]],
        token: Callable[[], str],
    ) -> None:
        self._inference = inference
        self._ready = ready
        self._token = token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, until it is done or its client has gone."""
        request = Request(scope, receive)
        try:
            if request.method != "POST":
                await Response(status_code=405, headers={"Allow": "POST"})(scope, receive, send)
                return
            self._authorise(request)
            asked = wire.parse_request(await _body(request))
            self._refuse_unless_ready()
        except ChatbotError as error:
            await _refusal(error)(scope, receive, send)
        except ClientDisconnect:
            return
        else:
            await _until_gone(self._serve(asked, scope, receive, send), receive)

    async def _serve(
        self, asked: wire.GenerateRequest, scope: Scope, receive: Receive, send: Send
    ) -> None:
        async with contextlib.aclosing(self._inference.answer(asked)) as items:
            try:
                first = await anext(items)
            except ChatbotError as error:
                await _refusal(error)(scope, receive, send)
                return
            start = {"type": "http.response.start", "status": 200, "headers": _STREAM_HEADERS}
            await send(start)
            await _send_line(send, wire.encode(first))
            try:
                async for item in items:
                    await _send_line(send, wire.encode(item))
            except ChatbotError as error:
                await _send_line(send, wire.encode_error(error))
            await send({"type": "http.response.body", "body": b"", "more_body": False})

    def _authorise(self, request: Request) -> None:
        stated = request.headers.get("authorization", "").encode()
        if not hmac.compare_digest(stated, f"Bearer {self._token()}".encode()):
            raise Unauthenticated("the internal token is missing or wrong")

    def _refuse_unless_ready(self) -> None:
        ready, reason = self._ready()
        if not ready:
            raise Unavailable("inference", reason)


def app(endpoint: GenerateEndpoint) -> Starlette:
    """Return the proxy's application."""
    return Starlette(routes=[Route(wire.GENERATE_PATH, endpoint)])


async def _body(request: Request) -> bytes:
    content = bytearray()
    async for piece in request.stream():
        content += piece
        if len(content) > wire.MAX_REQUEST_BYTES:
            allowed = f"at most {wire.MAX_REQUEST_BYTES} bytes"
            raise TooLarge("request", f"more than {len(content)} bytes", allowed)
    return bytes(content)


async def _send_line(send: Send, line: bytes) -> None:
    await send({"type": "http.response.body", "body": line, "more_body": True})


def _refusal(error: ChatbotError) -> Response:
    headers = dict(_HEADERS)
    retry_after_s = getattr(error, "retry_after_s", None)
    if retry_after_s is not None:
        headers["Retry-After"] = str(math.ceil(retry_after_s))
    return Response(
        wire.encode_error(error),
        status_code=http_status(error),
        headers=headers,
        media_type="application/json",
    )


async def _until_gone(work: Coroutine[Any, Any, None], receive: Receive) -> None:
    """Run `work` to its end, or cancel it when the client closes its connection."""
    working = asyncio.create_task(work)
    gone = asyncio.create_task(_disconnect(receive))
    try:
        await asyncio.wait({working, gone}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        gone.cancel()
        working.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await working


async def _disconnect(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
