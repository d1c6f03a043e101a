"""Plain progress lines on stderr: stdout stays free for what scripts read."""

import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from localkube.errors import ClusterError

HEARTBEAT_S = 8.0


@dataclass(slots=True)
class Progress:
    """Prints one line a stage, and one at least every 10 s during a long stage."""

    started_s: float = field(default_factory=time.monotonic)

    def line(self, text: str) -> None:
        """Print the text behind the seconds since the start."""
        elapsed_s = time.monotonic() - self.started_s
        sys.stderr.write(f"[{elapsed_s:4.0f}s] {text}\n")
        sys.stderr.flush()

    def run(
        self, command: Sequence[str], environment: dict[str, str], cwd: Path, estimate: "Estimate"
    ) -> None:
        """Run the command to its end with a line every few seconds.

        Raises `ClusterError` with the end of the command's output when it fails.
        """
        began_s = time.monotonic()
        self.line(estimate.sentence(0))
        with subprocess.Popen(
            command,
            cwd=cwd,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        ) as process:
            output = self._drain(process, lambda: estimate.sentence(time.monotonic() - began_s))
        if process.returncode != 0:
            tail = "\n".join(output.splitlines()[-25:])
            message = f"{estimate.what} failed: {' '.join(command[:3])} ...\n{tail}"
            raise ClusterError(message)

    def _drain(self, process: subprocess.Popen[str], sentence: Callable[[], str]) -> str:
        while True:
            try:
                return process.communicate(timeout=HEARTBEAT_S)[0]
            except subprocess.TimeoutExpired:
                self.line(sentence())


@dataclass(frozen=True, slots=True)
class Estimate:
    """What runs, and the seconds it is expected to take."""

    what: str
    expected_s: float

    def sentence(self, elapsed_s: float) -> str:
        """Return what runs and about how long it still takes."""
        left_s = self.expected_s - elapsed_s
        if left_s >= 1:
            return f"{self.what}, about {left_s:.0f} s left"
        return f"{self.what}, {elapsed_s - self.expected_s:.0f} s longer than expected"
