"""Child processes whose words are passed on line by line."""

from __future__ import annotations

import collections
import contextlib
import os
import signal
import subprocess
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO

from environment import ROOT
from firstrun.errors import StageFailedError

KEPT_LINES = 25


class Child:
    """One running child in a session of its own; both outputs are read by threads."""

    def __init__(
        self,
        command: Sequence[str | Path],
        say: Callable[[str], None],
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.name = " ".join(str(word) for word in command[:3])
        self.tail: collections.deque[str] = collections.deque(maxlen=KEPT_LINES)
        self.output: list[str] = []
        self._say = say
        self.process = subprocess.Popen(
            command,
            cwd=ROOT,
            env={**os.environ, **(environment or {})},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            start_new_session=True,
        )
        assert self.process.stdout is not None
        assert self.process.stderr is not None
        self._readers = [
            threading.Thread(target=self._keep, args=(self.process.stdout,), daemon=True),
            threading.Thread(target=self._relay, args=(self.process.stderr,), daemon=True),
        ]
        for reader in self._readers:
            reader.start()

    def _keep(self, stream: IO[str]) -> None:
        for line in stream:
            self.output.append(line)
            self.tail.append(line.rstrip())

    def _relay(self, stream: IO[str]) -> None:
        for line in stream:
            self.tail.append(line.rstrip())
            self._say(line.rstrip())

    @property
    def running(self) -> bool:
        """Return whether the process has not ended yet."""
        return self.process.poll() is None

    def wait(self) -> str:
        """Wait for the end and return the standard output; raises StageFailedError if it failed."""
        code = self.process.wait()
        for reader in self._readers:
            reader.join(timeout=5)
        if code != 0:
            said = "\n".join(self.tail)
            raise StageFailedError(f"{self.name} exited with {code}:\n{said}", code)
        return "".join(self.output)

    def end(self, timeout_s: float = 15.0) -> None:
        """Ask the process to stop, and end its whole session when it does not."""
        if self.running:
            self.process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(timeout_s)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
