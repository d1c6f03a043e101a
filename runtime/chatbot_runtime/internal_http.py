"""HTTP servers of a process: the ASGI server as a context, and the internal port that all share.

`/livez` says that the event loop turns, and how late it runs; `/readyz` says whether work may be
sent here, with the reason where not; `/metrics` is the Prometheus text format.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable, Iterator, Sequence

import uvicorn
from prometheus_client import CONTENT_TYPE_LATEST, Gauge, generate_latest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp

from chatbot_runtime.sockets import listen

Ready = Callable[[], tuple[bool, str]]
"""Says whether work may be sent here, and why not (an empty reason when ready)."""

_LAG_SAMPLE_S = 0.5
_LAG = Gauge("chatbot_event_loop_lag_seconds", "How late the event loop woke a sleeper last")


class _Server(uvicorn.Server):
    """uvicorn without signal handlers: signals belong to the process, in `cli`."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave the process's handlers alone."""
        yield


@contextlib.asynccontextmanager
async def serve_app(app: ASGIApp, host: str, port: int, drain_s: int = 5) -> AsyncIterator[int]:
    """Serve an ASGI application inside the context; yield the real port (0 takes a free one).

    At the end new connections are refused and running answers may take up to `drain_s` seconds.
    """
    listener = listen(host, port)
    real_port: int = listener.getsockname()[1]
    async with serve_on(listener, app, drain_s):
        yield real_port


@contextlib.asynccontextmanager
async def serve_on(listener: socket.socket, app: ASGIApp, drain_s: int = 5) -> AsyncIterator[None]:
    """Serve on a socket that listens already, for those who must know the port before."""
    config = uvicorn.Config(
        app,
        http="h11",
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=drain_s,
    )
    server = _Server(config)
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        yield
    finally:
        server.should_exit = True
        with contextlib.suppress(asyncio.CancelledError):
            await serving
        listener.close()


class _LoopLag:
    """How late this loop wakes a sleeper: what people feel when something blocks it."""

    def __init__(self) -> None:
        self.last_ms = 0.0
        self.up_s = 0.0

    async def watch(self) -> None:
        """Sample until cancelled."""
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        while True:
            wake_s = loop.time() + _LAG_SAMPLE_S
            await asyncio.sleep(_LAG_SAMPLE_S)
            lag_s = max(0.0, loop.time() - wake_s)
            _LAG.set(lag_s)
            self.last_ms = round(lag_s * 1000, 1)
            self.up_s = round(loop.time() - began_s, 1)


def _routes(ready: Ready, lag: _LoopLag) -> list[BaseRoute]:
    async def livez(request: Request) -> Response:
        return JSONResponse({"status": "ok", "event_loop_lag_ms": lag.last_ms, "up_s": lag.up_s})

    async def readyz(request: Request) -> Response:
        is_ready, reason = ready()
        body = {"status": "ok" if is_ready else "not ready", "reason": reason}
        return JSONResponse(body, status_code=200 if is_ready else 503)

    async def metrics(request: Request) -> Response:
        return Response(generate_latest(), headers={"Content-Type": CONTENT_TYPE_LATEST})

    return [Route("/livez", livez), Route("/readyz", readyz), Route("/metrics", metrics)]


@contextlib.asynccontextmanager
async def serve_internal(
    port: int, ready: Ready, app_routes: Sequence[BaseRoute] = (), host: str = "127.0.0.1"
) -> AsyncIterator[int]:
    """Serve the internal port inside the context; yield the real port (0 takes a free one).

    `app_routes` are added before the common ones. Pass `settings.bind_host` as `host`.
    """
    lag = _LoopLag()
    app = Starlette(routes=[*app_routes, *_routes(ready, lag)])
    watching = asyncio.create_task(lag.watch())
    try:
        async with serve_app(app, host, port) as real_port:
            yield real_port
    finally:
        watching.cancel()
