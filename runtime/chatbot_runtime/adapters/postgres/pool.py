"""A small pool of connections; the only door to PostgreSQL.

Errors become ours at this border: what a later try may cure is `Unavailable`, what our own
statement caused is `Bug`. No statement is repeated here.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, Final

import asyncpg

from chatbot_core import names
from chatbot_core.errors import Bug, NotFound, Unavailable
from chatbot_runtime.ports import ReadSecret

MAX_CONNECTIONS: Final = 8
CONNECT_TIMEOUT_S: Final = 5.0
STATEMENT_TIMEOUT_S: Final = 30.0
#: A server that vanished with its machine closes nothing: unanswered packets end a connection
#: after this long, and an idle one is asked for a sign of life after this long (tcp(7)).
SILENCE_MS: Final = 5000

# SQLSTATE classes that our own statements or values cause: data, integrity, syntax and names.
_OUR_FAULT: Final = frozenset({"22", "23", "42"})
# ... except: a table or schema that migration has not made yet, or a right not granted yet.
_NOT_MIGRATED: Final = frozenset({"42P01", "42703", "3F000"})
_NOT_PERMITTED: Final = "42501"

_NOT_STORABLE: Final = re.compile("[\0\ud800-\udfff]")


@contextlib.contextmanager
def border() -> Iterator[None]:
    """Turn the driver's errors into ours. Raises Unavailable or Bug."""
    try:
        yield
    except asyncpg.PostgresError as error:
        raise _ours(error) from error
    except asyncpg.InterfaceError as error:
        if isinstance(error, ValueError):
            raise Bug(f"database driver refused a value: {error}") from error
        raise Unavailable("database", "connection lost") from error
    except asyncpg.InternalClientError as error:
        # What the driver says of a connection that was lost in the middle of its protocol.
        raise Unavailable("database", "connection lost") from error
    except ssl.SSLError as error:
        raise Unavailable("database", "its certificate is not accepted") from error
    except (OSError, TimeoutError) as error:
        raise Unavailable("database", "no answer") from error


def _ours(error: asyncpg.PostgresError) -> Unavailable | Bug:
    state = error.sqlstate or ""
    if state in _NOT_MIGRATED:
        return Unavailable("database", "schema not migrated yet")
    if state == _NOT_PERMITTED:
        return Unavailable("database", "role lacks a permission")
    if state[:2] == "28":
        return Unavailable("database", "credentials refused")
    if state[:2] in _OUR_FAULT:
        return Bug(f"database refused a statement with SQLSTATE {state}: {error}")
    return Unavailable("database", f"SQLSTATE {state}")


class Database:
    """Connections on demand, at most `max_connections`, opened with the Secret as it is then.

    Every new connection reads the DSN anew, so that a rotated password takes effect at the
    next connection; nothing is connected before the first use. `judge` sees each new connection
    before anybody else does, and raises where the service cannot work with what it finds.
    """

    def __init__(
        self,
        read_secret: ReadSecret,
        ca_file: Path | None = None,
        max_connections: int = MAX_CONNECTIONS,
        statement_timeout_s: float = STATEMENT_TIMEOUT_S,
        judge: Callable[[Any], Awaitable[None]] | None = None,
    ) -> None:
        self._read_secret = read_secret
        self._ca_file = ca_file
        self._max_connections = max_connections
        self._statement_timeout_s = statement_timeout_s
        self._judge = judge
        self._pool: Any = None
        self._opening = asyncio.Lock()

    async def close(self) -> None:
        """Close every connection, at once where one does not end in 2 s."""
        pool, self._pool = self._pool, None
        if pool is None:
            return
        try:
            async with asyncio.timeout(2.0):
                await pool.close()
        except (TimeoutError, OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
            pool.terminate()

    @contextlib.asynccontextmanager
    async def connection(self) -> AsyncIterator[Any]:
        """Lend a connection. Raises Unavailable or Bug, also for what happens inside."""
        with border():
            pool = self._pool or await self._open()
            async with pool.acquire(timeout=CONNECT_TIMEOUT_S) as connection:
                yield connection

    @contextlib.asynccontextmanager
    async def transaction(self, isolation: str = "read_committed") -> AsyncIterator[Any]:
        """Lend a connection inside a transaction; `repeatable_read` ones are read-only."""
        readonly = isolation == "repeatable_read"
        async with (
            self.connection() as connection,
            connection.transaction(isolation=isolation, readonly=readonly),
        ):
            yield connection

    async def fetch(self, statement: str, *values: object) -> list[Any]:
        """Return all rows of one statement."""
        async with self.connection() as connection:
            rows: list[Any] = await connection.fetch(statement, *values)
            return rows

    async def fetchrow(self, statement: str, *values: object) -> Any:
        """Return the first row of one statement, or None."""
        async with self.connection() as connection:
            return await connection.fetchrow(statement, *values)

    async def execute(self, statement: str, *values: object) -> int:
        """Run one statement and return how many rows it touched."""
        async with self.connection() as connection:
            tag: str = await connection.execute(statement, *values)
            return touched(tag)

    async def _open(self) -> Any:
        async with self._opening:
            if self._pool is None:
                self._pool = await asyncpg.create_pool(
                    connect=self._connect,
                    min_size=0,
                    max_size=self._max_connections,
                    max_inactive_connection_lifetime=300.0,
                    init=self._judge,
                )
            return self._pool

    async def _connect(self, _no_dsn: None = None, **options: Any) -> Any:
        """Open a connection; asyncpg's pool passes its empty DSN, its loop and its classes."""
        try:
            dsn = self._read_secret(names.FILE_DSN)
        except NotFound as error:
            raise Unavailable("database", str(error)) from error
        if self._ca_file is not None and "sslrootcert=" not in dsn:
            options["ssl"] = _tls(self._ca_file, check_host="sslmode=verify-ca" not in dsn)
        options |= {
            "dsn": dsn,
            "timeout": CONNECT_TIMEOUT_S,
            "command_timeout": self._statement_timeout_s,
            "server_settings": {"application_name": "chatbot-runtime"},
        }
        connection = await asyncpg.connect(**options)
        # asyncpg has no option for its socket.
        _notice_silence(connection._transport.get_extra_info("socket"))  # noqa: SLF001
        return connection


def _notice_silence(transport_socket: Any) -> None:
    """Let the kernel end a connection whose other side is silent; Unix sockets need none of it."""
    if transport_socket.family == socket.AF_UNIX or not hasattr(socket, "TCP_USER_TIMEOUT"):
        return
    for option, value in (
        (socket.TCP_USER_TIMEOUT, SILENCE_MS),
        (socket.TCP_KEEPIDLE, SILENCE_MS // 1000),
        (socket.TCP_KEEPINTVL, 1),
        (socket.TCP_KEEPCNT, 3),
    ):
        transport_socket.setsockopt(socket.IPPROTO_TCP, option, value)
    transport_socket.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)


def _tls(ca_file: Path, *, check_host: bool) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(ca_file))
    context.check_hostname = check_host
    return context


def touched(tag: str) -> int:
    """Return the row count of a command tag: `UPDATE 3` -> 3, `BEGIN` -> 0."""
    last = tag.rsplit(" ", 1)[-1]
    return int(last) if last.isdigit() else 0


def storable(text: str) -> str:
    """Return text that PostgreSQL can hold, of the same length: no NUL, no lone surrogate."""
    return _NOT_STORABLE.sub("\ufffd", text)
