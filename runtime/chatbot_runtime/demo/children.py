"""Child processes that never outlive this one, however it ends.

The kernel signals a child when its parent dies (`PR_SET_PDEATHSIG`, prctl(2), Linux). Children get
a session of their own, so that Ctrl-C reaches the parent alone, which then stops them in order.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from chatbot_core import names
from chatbot_core.errors import Unavailable

_PR_SET_PDEATHSIG: Final = 1
_LOG_TAIL_LINES: Final = 15


@dataclass(frozen=True, slots=True)
class Child:
    """A running child; its output goes to a file."""

    name: str
    process: asyncio.subprocess.Process
    log: Path
    stop_signal: signal.Signals

    async def ended(self) -> None:
        """Wait for its end, which nobody asked for. Raises Unavailable with its last lines."""
        code = await self.process.wait()
        raise Unavailable(self.name, f"it ended with {code}; its last lines:\n{self.tail()}")

    async def succeeded(self) -> None:
        """Wait for a clean end. Raises Unavailable with its last lines for another one."""
        code = await self.process.wait()
        if code != 0:
            raise Unavailable(self.name, f"it ended with {code}; its last lines:\n{self.tail()}")

    def tail(self) -> str:
        """Return the end of its output."""
        lines = self.log.read_text(encoding="utf-8", errors="replace").splitlines()
        return "\n".join(lines[-_LOG_TAIL_LINES:])

    async def stop(self, within_s: float) -> None:
        """Ask it to stop, and kill it when it takes longer."""
        if self.process.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(self.stop_signal)
        try:
            async with asyncio.timeout(within_s):
                await self.process.wait()
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                self.process.kill()
            await self.process.wait()


def _environment() -> dict[str, str]:
    """Return ours without what a pod would say of itself: each child is a process of its own."""
    of_a_pod = {names.ENV_POD_NAME, names.ENV_POD_IP, names.ENV_NAMESPACE}
    return {name: value for name, value in os.environ.items() if name not in of_a_pod}


def _die_with(parent: int, by: signal.Signals) -> Callable[[], None]:
    if sys.platform != "linux":
        return lambda: None
    prctl = ctypes.CDLL(None).prctl

    def arm() -> None:
        prctl(_PR_SET_PDEATHSIG, by)
        if os.getppid() != parent:  # it died before we were armed
            os.kill(os.getpid(), signal.SIGKILL)

    return arm


@dataclass(frozen=True, slots=True)
class Children:
    """Starts children; `logs` is the folder of their output, a file each."""

    logs: Path

    async def start(
        self,
        name: str,
        command: Sequence[str | Path],
        *,
        stop_signal: signal.Signals = signal.SIGTERM,
        death_signal: signal.Signals = signal.SIGKILL,
    ) -> Child:
        """Start one. Raises Unavailable where the program cannot be run."""
        log = self.logs / f"{name}.log"
        with log.open("ab") as output:
            try:
                process = await asyncio.create_subprocess_exec(
                    *map(str, command),
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    start_new_session=True,
                    env=_environment(),
                    preexec_fn=_die_with(os.getpid(), death_signal),
                )
            except OSError as error:
                raise Unavailable(name, f"{command[0]}: {error.strerror}") from None
        return Child(name, process, log, stop_signal)


@contextlib.asynccontextmanager
async def stopping(child: Child, within_s: float) -> AsyncIterator[Child]:
    """Stop a child at the end of the context."""
    try:
        yield child
    finally:
        await child.stop(within_s)
