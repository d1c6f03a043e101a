"""The `demo` role: the whole service on this machine, in one command.

A real PostgreSQL and the other roles as child processes with one config file; no wiring of its
own. Nothing survives this process, however it ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import tempfile
import time
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import Any, Final

from chatbot_core.errors import Invalid
from chatbot_core.names import Role
from chatbot_runtime.demo import announce, plan, postgres, waiting
from chatbot_runtime.demo.children import Child, Children
from chatbot_runtime.demo.plan import Folders, Ports
from chatbot_runtime.sockets import listen

_STOP_S: Final = 10.0
#: Leaves room for PostgreSQL's own name of a socket, `.s.PGSQL.5432.lock`.
_SOCKETS_PATH_BYTES: Final = 85


async def run(data: Path | None, port: int, model: Path | None, stopping: asyncio.Event) -> None:
    """Run until told to stop. Without `data` everything is gone afterwards.

    Raises Invalid for a model file that is not there, Unavailable with a process's last lines
    when it ends by itself.
    """
    began_s = time.monotonic()
    _check_model(model)
    with _folders(data) as (folders, sockets):
        ports = Ports(port or _free_port(), _free_port(), _free_port())
        listen("127.0.0.1", ports.public).close()
        database = postgres.Postgres(sockets)
        plan.write(folders, plan.config(folders, ports, model), database.dsn)
        children = Children(folders.logs)
        async with contextlib.AsyncExitStack() as stack:
            # All wait for database and schema by themselves; the longest to start goes first.
            commands = plan.processes(folders, ports, model)
            first = {Role.API.value: commands.pop(Role.API.value)}
            lasting = await _start(stack, children, first)
            migration = await children.start("migrate", plan.command(folders, Role.MIGRATE))
            stack.push_async_callback(migration.stop, _STOP_S)
            await stack.enter_async_context(
                postgres.running(children, folders.database, sockets, keep=data is not None)
            )
            lasting += await _start(stack, children, commands)
            watching = [asyncio.create_task(child.ended()) for child in lasting]
            stack.push_async_callback(_stop, lasting, watching)
            await _main_line(watching, _ready(migration, ports, folders, model), stopping)
            if not stopping.is_set():
                announce.announce(folders, ports, model, time.monotonic() - began_s)
                await _main_line(watching, stopping.wait(), stopping)


def _check_model(model: Path | None) -> None:
    if model is not None and not model.is_file():
        raise Invalid("--model", str(model), "a GGUF file")


async def _start(
    stack: contextlib.AsyncExitStack, children: Children, commands: dict[str, list[str]]
) -> list[Child]:
    lasting = []
    for name, command in commands.items():
        child = await children.start(name, command)
        stack.push_async_callback(child.stop, _STOP_S)
        lasting.append(child)
    return lasting


async def _ready(migration: Child, ports: Ports, folders: Folders, model: Path | None) -> None:
    await migration.succeeded()
    roles = [Role.API, Role.INGEST, *[Role.SHARD] * plan.SHARDS]
    roles += [Role.INFERENCE_PROXY] if model else []
    await waiting.until_ready(ports.internal, plan.internal_token(folders), roles)


async def _main_line(
    watching: list[asyncio.Task[None]], work: Coroutine[Any, Any, object], stop: asyncio.Event
) -> None:
    """Do `work` until it is done or we are told to stop; a child's end ends it with an error."""
    main = [asyncio.create_task(work), asyncio.create_task(stop.wait())]
    try:
        done, _ = await asyncio.wait([*watching, *main], return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in main:
            task.cancel()
        await asyncio.gather(*main, return_exceptions=True)


async def _stop(lasting: list[Child], watching: list[asyncio.Task[None]]) -> None:
    """Stop all roles at once; the database, which they still need, ends after them."""
    for task in watching:
        task.cancel()
    await asyncio.gather(*watching, return_exceptions=True)
    await asyncio.gather(*(child.stop(_STOP_S) for child in lasting))


@contextlib.contextmanager
def _folders(data: Path | None) -> Iterator[tuple[Folders, Path]]:
    """Yield the data folder and one for sockets, whose paths must be short (unix(7): 107 bytes)."""
    made: list[Path] = []
    try:
        if data is None:
            data = Path(tempfile.mkdtemp(prefix="chatbot-demo-"))
            made.append(data)
        sockets = data.resolve() / "sockets"
        if len(os.fsencode(sockets)) > _SOCKETS_PATH_BYTES:
            sockets = Path(tempfile.mkdtemp(prefix="chatbot-"))
            made.append(sockets)
        sockets.mkdir(parents=True, exist_ok=True)
        sockets.chmod(0o700)
        yield Folders(data.resolve()), sockets
    finally:
        for folder in made:
            shutil.rmtree(folder, ignore_errors=True)


def _free_port() -> int:
    with listen("127.0.0.1", 0) as listener:
        port: int = listener.getsockname()[1]
    return port
