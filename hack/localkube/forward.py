"""One published port: ``python -m localkube.forward JSON``.

A socket belongs to the network namespace in which it was made. So this process
makes its listening socket on the machine's loopback first, then moves into the
instance's namespace, and every connection it opens from then on starts there.
No packet crosses, no route and no port of the machine is touched.

A Service's address is asked anew for every connection: the Service may have been
deleted and made again, and the published port should outlive that.
"""

import asyncio
import contextlib
import ctypes
import json
import os
import secrets
import socket
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from localkube.layout import NODE_IP
from localkube.resolver import addresses, query

_CLONE_NEWNET = 0x40000000
_CHUNK_BYTES = 1 << 16
_CONNECT_TIMEOUT_S = 10.0
_LOOKUP_TIMEOUT_S = 1.0
_TRIAL_S = 1.5
_PAUSE_S = 0.2
_DNS_PORT = 53


@dataclass(frozen=True, slots=True)
class Target:
    """Where connections go: an address, or a name to ask the cluster's name server."""

    host: str
    port: int
    is_service: bool


class NoAddressError(OSError):
    """The cluster's name server knows no address for the name."""


class _Answer(asyncio.DatagramProtocol):
    def __init__(self, identifier: int, found: asyncio.Future[list[str]]) -> None:
        self._identifier = identifier
        self._found = found

    def datagram_received(self, data: bytes, addr: Any) -> None:
        with contextlib.suppress(ValueError):
            if not self._found.done():
                self._found.set_result(addresses(self._identifier, data))

    def error_received(self, exc: Exception) -> None:
        if not self._found.done():
            self._found.set_exception(exc)


async def look_up(name: str) -> str:
    """Return the address of a cluster name; raises `NoAddressError` when it has none."""
    loop = asyncio.get_running_loop()
    identifier = secrets.randbelow(1 << 16)
    found: asyncio.Future[list[str]] = loop.create_future()
    transport, _ = await loop.create_datagram_endpoint(
        lambda: _Answer(identifier, found), remote_addr=(NODE_IP, _DNS_PORT)
    )
    try:
        transport.sendto(query(identifier, name))
        hosts = await asyncio.wait_for(found, _LOOKUP_TIMEOUT_S)
    finally:
        transport.close()
    if not hosts:
        raise NoAddressError(name)
    return hosts[0]


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(_CHUNK_BYTES):
        writer.write(data)
        await writer.drain()
    # Half-closed, not closed: the other direction may still have to finish.
    with contextlib.suppress(OSError):
        writer.write_eof()


def _keep_alive(writer: asyncio.StreamWriter) -> None:
    # An idle watch must notice when the other side is gone for good.
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)


async def _connect(target: Target) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    if not target.is_service:
        return await asyncio.open_connection(target.host, target.port)
    while True:
        # A Service that is gone for a moment has no name, or an old address that swallows
        # packets; one without ready pods refuses, and that is an answer to pass on.
        try:
            async with asyncio.timeout(_TRIAL_S):
                return await asyncio.open_connection(await look_up(target.host), target.port)
        except (TimeoutError, NoAddressError):
            await asyncio.sleep(_PAUSE_S)


async def serve_one(
    target: Target, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    """Carry one connection until both directions have ended or either one broke."""
    ends = [writer]
    try:
        async with asyncio.timeout(_CONNECT_TIMEOUT_S):
            far_reader, far_writer = await _connect(target)
        ends.append(far_writer)
        for end in ends:
            _keep_alive(end)
        async with asyncio.TaskGroup() as both:
            both.create_task(_copy(reader, far_writer))
            both.create_task(_copy(far_reader, writer))
    except* (OSError, TimeoutError) as errors:
        sys.stderr.write(f"connection to {target.host}:{target.port}: {errors.exceptions}\n")
    finally:
        for end in ends:
            end.close()


async def serve(listener: socket.socket, target: Target) -> None:
    """Accept connections for ever."""
    server = await asyncio.start_server(
        lambda reader, writer: serve_one(target, reader, writer), sock=listener, backlog=512
    )
    async with server:
        await server.serve_forever()


def enter_network(namespace: str) -> None:
    """Move this process into the network namespace of that file; raises `OSError`."""
    libc = ctypes.CDLL(None, use_errno=True)
    descriptor = os.open(namespace, os.O_RDONLY | os.O_CLOEXEC)
    try:
        if libc.setns(descriptor, _CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), "setns")
    finally:
        os.close(descriptor)


def main(arguments: list[str]) -> None:
    """Take ``{"listen": port, "namespace": file, "target": {...}, "ready": file}``."""
    plan = json.loads(arguments[0])
    listener = socket.create_server(("127.0.0.1", plan["listen"]), backlog=512)
    enter_network(plan["namespace"])
    Path(plan["ready"]).touch()
    asyncio.run(serve(listener, Target(**plan["target"])))


if __name__ == "__main__":
    main(sys.argv[1:])
