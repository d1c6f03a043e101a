"""One port for the probes and the metrics: /livez, /readyz, /metrics."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from chatbot_operator.heartbeats import Heartbeats
from chatbot_operator.telemetry import Telemetry

#: The loop's own heartbeat, and how late it may be before the process counts as stuck.
BEAT_S: Final = 0.1
LAG_MAX_S: Final = 10.0
#: Watches end and begin every minute: three silent minutes are a dead feeder.
SILENCE_MAX_S: Final = 180.0
#: Where no feeder gets an answer the API server is away: a restart would only throw away what is
#: known. So it is tried rarely.
OUTAGE_MAX_S: Final = 1800.0


@dataclass(slots=True)
class Pulse:
    """The event loop's heartbeat; `at_s` is the loop's own clock."""

    telemetry: Telemetry
    heartbeats: Heartbeats
    at_s: float = 0.0

    async def run(self) -> None:
        """Beat until cancelled, and measure lag and watch age."""
        loop = asyncio.get_running_loop()
        while True:
            before_s = self.at_s = loop.time()
            await asyncio.sleep(BEAT_S)
            self.telemetry.loop_lag_s.observe(max(0.0, loop.time() - before_s - BEAT_S))
            self.telemetry.watch_age_s.set(self.heartbeats.oldest_s())

    def trouble(self) -> str:
        """Return why the process should be restarted, "" if it is well."""
        lag_s = asyncio.get_running_loop().time() - self.at_s
        if self.at_s and lag_s > LAG_MAX_S + BEAT_S:
            return f"the event loop is {lag_s:.0f} s late"
        most_s, least_s = self.heartbeats.silent_s()
        if most_s > SILENCE_MAX_S > least_s:
            return f"a watch has been silent for {most_s:.0f} s, and others have not"
        if least_s > OUTAGE_MAX_S:
            return f"the API server has been silent for {least_s:.0f} s"
        return ""


@contextlib.asynccontextmanager
async def serve(
    port: int, pulse: Pulse, complete: Callable[[], bool], telemetry: Telemetry
) -> AsyncIterator[int]:
    """Serve the port while the context is open and yield it; 0 takes a free one."""

    async def livez(_: web.Request) -> web.Response:
        return _answer(pulse.trouble())

    async def readyz(_: web.Request) -> web.Response:
        return _answer("" if complete() else "the first lists are not complete yet")

    async def metrics(_: web.Request) -> web.Response:
        text = generate_latest(telemetry.registry)
        return web.Response(body=text, headers={"Content-Type": CONTENT_TYPE_LATEST})

    app = web.Application()
    app.add_routes(
        [web.get("/livez", livez), web.get("/readyz", readyz), web.get("/metrics", metrics)]
    )
    runner = web.AppRunner(app, handle_signals=False, access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    try:
        await web.TCPSite(runner, None, port).start()
        # With port 0 each address family has a port of its own; name that of the shorter, IPv4.
        yield int(min(runner.addresses, key=len)[1])
    finally:
        await runner.cleanup()


def _answer(trouble: str) -> web.Response:
    if trouble:
        return web.Response(text=f"{trouble}\n", status=HTTPStatus.SERVICE_UNAVAILABLE)
    return web.Response(text="ok\n")
