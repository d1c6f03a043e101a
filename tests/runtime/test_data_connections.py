"""Connections to PostgreSQL over TCP: encrypted, checked, and found again after a restart.

A TLS front before the real server stands for one with `ssl = on` (PostgreSQL protocol, SSLRequest).
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from fakes.tls import copy, make_certificate, server_side

from chatbot_core.errors import Unavailable
from chatbot_runtime.adapters.postgres.pool import SILENCE_MS, Database

SSL_REQUEST = bytes.fromhex("0000000804d2162f")


class Front:
    """A TCP door to the server behind a Unix socket; TLS where it has a certificate."""

    def __init__(self, dsn: str, tls: ssl.SSLContext | None = None) -> None:
        address = urlsplit(dsn)
        self._database = address.path
        self._behind = f"{parse_qs(address.query)['host'][0]}/.s.PGSQL.5432"
        self._tls = tls
        self._open: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None
        self._port = 0
        self.encrypted = 0

    def dsn(self, host: str = "localhost", options: str = "") -> str:
        return f"postgresql://postgres@{host}:{self._port}{self._database}{options}"

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self._port)
        self._port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Go away as a server that is stopped: no listener, every connection closed."""
        assert self._server is not None
        self._server.close()
        for writer in tuple(self._open):
            writer.close()
        await asyncio.sleep(0.05)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open.add(writer)
        behind: asyncio.StreamWriter | None = None
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            first = await reader.readexactly(8)
            if first == SSL_REQUEST:
                writer.write(b"S" if self._tls else b"N")
                await writer.drain()
                first = b""
                if self._tls:
                    await writer.start_tls(self._tls)
                    self.encrypted += 1
            answers, behind = await asyncio.open_unix_connection(self._behind)
            behind.write(first)
            await asyncio.gather(copy(reader, behind), copy(answers, writer))
        for one in filter(None, (writer, behind)):
            one.close()
        self._open.discard(writer)


@contextlib.asynccontextmanager
async def front(dsn: str, tls: ssl.SSLContext | None = None) -> AsyncIterator[Front]:
    one = Front(dsn, tls)
    await one.start()
    try:
        yield one
    finally:
        await one.stop()


@contextlib.asynccontextmanager
async def pool(dsn: str, ca_file: Path | None = None) -> AsyncIterator[Database]:
    database = Database(lambda _name: dsn, ca_file)
    try:
        yield database
    finally:
        await database.close()


async def test_an_authority_of_its_own_encrypts_and_checks_the_server(
    dsn: str, tmp_path: Path
) -> None:
    ca, other_ca = make_certificate(tmp_path, "ours"), make_certificate(tmp_path, "other")
    async with front(dsn, server_side(tmp_path, "ours")) as server:
        async with pool(server.dsn(), ca) as database:
            assert (await database.fetch("SELECT 1"))[0][0] == 1
        assert server.encrypted == 1
        async with pool(server.dsn(), other_ca) as stranger:
            with pytest.raises(Unavailable, match="certificate is not accepted"):
                await stranger.fetch("SELECT 1")
        async with pool(server.dsn("127.0.0.1"), ca) as misnamed:
            with pytest.raises(Unavailable, match="certificate is not accepted"):
                await misnamed.fetch("SELECT 1")
        async with pool(server.dsn("127.0.0.1", "?sslmode=verify-ca"), ca) as by_ca:
            assert (await by_ca.fetch("SELECT 1"))[0][0] == 1


async def test_nothing_is_sent_in_the_clear_where_an_authority_is_given(
    dsn: str, tmp_path: Path
) -> None:
    ca = make_certificate(tmp_path, "ours")
    async with front(dsn) as plain, pool(plain.dsn(), ca) as database:
        with pytest.raises(Unavailable):
            await database.fetch("SELECT 1")


async def test_a_server_that_was_away_is_used_at_the_first_call_after_its_return(dsn: str) -> None:
    async with front(dsn) as server, pool(server.dsn()) as database:
        await asyncio.gather(*(database.fetch("SELECT pg_sleep(0.1)") for _ in range(8)))
        await server.stop()
        async with asyncio.timeout(1):
            for _ in range(8):
                with pytest.raises(Unavailable):
                    await database.fetch("SELECT 1")
        await server.start()
        answers = await asyncio.gather(*(database.fetch("SELECT 1") for _ in range(16)))
    assert [rows[0][0] for rows in answers] == [1] * 16


async def test_the_kernel_ends_a_connection_whose_other_side_is_silent(dsn: str) -> None:
    async with (
        front(dsn) as server,
        pool(server.dsn()) as database,
        database.connection() as connection,
    ):
        raw = connection._con._transport.get_extra_info("socket")
        assert raw.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == SILENCE_MS
        assert raw.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
