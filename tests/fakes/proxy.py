"""A TCP proxy that can fall silent: connections stay open and nothing passes any more."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field


@dataclass(slots=True)
class Proxy:
    """Forwards to `target_port` on the loopback; `silence` mutes the connections of now."""

    target_port: int
    port: int = 0
    accepted: int = 0
    _muted: list[asyncio.Event] = field(default_factory=list)
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    def silence(self) -> None:
        """Forward nothing any more on the connections that exist, and close none of them."""
        for muted in self._muted:
            muted.set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Take one connection."""
        self.accepted += 1
        muted = asyncio.Event()
        self._muted.append(muted)
        there, back = await asyncio.open_connection("127.0.0.1", self.target_port)
        ways = ((reader, back), (there, writer))
        self._tasks |= {asyncio.create_task(_pump(*way, muted)) for way in ways}

    async def close(self) -> None:
        """End every connection."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


async def _pump(
    source: asyncio.StreamReader, target: asyncio.StreamWriter, muted: asyncio.Event
) -> None:
    try:
        with contextlib.suppress(OSError):
            while data := await source.read(65536):
                if not muted.is_set():
                    target.write(data)
                    await target.drain()
    finally:
        target.close()


@asynccontextmanager
async def proxy_to(target_port: int) -> AsyncIterator[Proxy]:
    """Run a proxy on a free port of the loopback."""
    proxy = Proxy(target_port)
    server = await asyncio.start_server(proxy.serve, "127.0.0.1", 0)
    proxy.port = server.sockets[0].getsockname()[1]
    try:
        yield proxy
    finally:
        server.close()
        await proxy.close()
