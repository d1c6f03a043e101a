"""Runs the commands of a build, with a progress line at least every ten seconds."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from images.errors import ImageError

PROGRESS_INTERVAL_S = 8.0
STOP_WAIT_S = 5.0
LOG_TAIL_LINES = 30

Say = Callable[[str], None]


def say_to_stderr(line: str) -> None:
    """Print one progress line; standard output stays free for the JSON result."""
    print(f"images: {line}", file=sys.stderr, flush=True)


def run(
    what: str,
    command: Sequence[str | Path],
    say: Say,
    *,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
) -> str:
    """Run a command to its end and return its standard output.

    `env` is added to this process's environment. A line with the elapsed seconds is said every
    `PROGRESS_INTERVAL_S`. Raises ImageError with the last lines of standard error when the
    command is missing or fails; an interruption ends the command's whole process group.
    """
    started_s = time.monotonic()
    say(what)
    with tempfile.TemporaryFile("w+") as output, tempfile.TemporaryFile("w+") as errors:
        try:
            process = subprocess.Popen(
                [str(word) for word in command],
                cwd=cwd,
                env={**os.environ, **(env or {})},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=errors,
                start_new_session=True,
            )
        except FileNotFoundError as error:
            raise ImageError(f"{what}: the command {command[0]} is not installed") from error
        try:
            status = _wait(process, what, started_s, say)
        finally:
            _end(process)
        output.seek(0)
        if status != 0:
            errors.seek(0)
            lines = (output.read() + errors.read()).splitlines()[-LOG_TAIL_LINES:]
            raise ImageError(f"{what} failed with exit status {status}:\n" + "\n".join(lines))
        return output.read()


def _wait(process: subprocess.Popen[bytes], what: str, started_s: float, say: Say) -> int:
    while True:
        try:
            return process.wait(timeout=PROGRESS_INTERVAL_S)
        except subprocess.TimeoutExpired:
            say(f"{what}, {time.monotonic() - started_s:.0f} s")


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the process group of a command that still runs."""
    if process.poll() is not None:
        return
    os.killpg(process.pid, signal.SIGTERM)
    try:
        process.wait(timeout=STOP_WAIT_S)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def need_debian_packages(packages: Mapping[str, str], say: Say) -> None:
    """Install the Debian packages whose command is missing; `packages` maps command to package.

    Raises ImageError where installing is impossible, naming the packages.
    """
    missing = sorted({name for command, name in packages.items() if not shutil.which(command)})
    if not missing:
        return
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        raise ImageError(f"missing commands: install {' '.join(missing)} with the package manager")
    run("updating the package lists", ["apt-get", "update", "-q"], say)
    run(
        f"installing the Debian packages {' '.join(missing)}",
        ["apt-get", "install", "-y", "-q", "--no-install-recommends", *missing],
        say,
        env={"DEBIAN_FRONTEND": "noninteractive"},
    )
