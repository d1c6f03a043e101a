"""Server-sent events (WHATWG HTML, section 9.2) that stop their source when the client leaves."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any, Final, TypeVar

from fastapi import HTTPException, Request
from fastapi.responses import StreamingResponse

T = TypeVar("T")

HEADERS: Final = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
_GONE_POLL_S: Final = 0.25
#: nginx's status for it; nobody reads it but the metrics.
_CLIENT_LEFT: Final = 499


def event(name: str, data: dict[str, Any], number: int | None = None) -> bytes:
    """Return one event on the wire; `number` becomes its id."""
    head = "" if number is None else f"id: {number}\n"
    return f"{head}event: {name}\ndata: {json.dumps(data, ensure_ascii=False)}\n\n".encode()


def stream(content: AsyncIterator[bytes]) -> StreamingResponse:
    """Return events as a response."""
    return StreamingResponse(content, media_type="text/event-stream", headers=HEADERS)


async def begun(request: Request, events: AsyncGenerator[T, None]) -> AsyncGenerator[T, None]:
    """Return the same events once the first is there; raises what the source raises before it.

    A client that leaves while the first is awaited stops the source: nobody would read it.
    """
    first = asyncio.ensure_future(anext(events))
    try:
        while not first.done():
            await asyncio.wait({first}, timeout=_GONE_POLL_S)
            if not first.done() and await request.is_disconnected():
                break
    finally:
        if not first.done():
            first.cancel()
            await asyncio.wait({first})
    if first.cancelled():
        await events.aclose()
        raise HTTPException(_CLIENT_LEFT, "the client left")
    return _rejoined(first.result(), events)


async def _rejoined(first: T, events: AsyncGenerator[T, None]) -> AsyncGenerator[T, None]:
    async with contextlib.aclosing(events):
        yield first
        async for item in events:
            yield item
