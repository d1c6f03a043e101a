"""Processes we start, and how to end exactly those again.

A pid alone is not enough: after a crash the number may belong to someone else.
So a process is remembered as pid and start time (field 22 of /proc/PID/stat,
proc(5)), and whatever no longer matches both is not ours.
"""

import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

_DIE_WITH_PARENT = ("setpriv", "--pdeathsig", "KILL", "--")


@dataclass(frozen=True, slots=True)
class Process:
    """One process: its pid and its start time in clock ticks after boot."""

    pid: int
    start_ticks: int

    @property
    def alive(self) -> bool:
        """Whether it still runs (a zombie does not)."""
        return _start_ticks(self.pid) == self.start_ticks


def find(pid: int) -> Process | None:
    """Return the running process with that pid, or None."""
    ticks = _start_ticks(pid)
    return None if ticks is None else Process(pid, ticks)


def _start_ticks(pid: int) -> int | None:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    # The command name stands in parentheses and may itself hold blanks and parentheses.
    fields = stat.rpartition(")")[2].split()
    if fields[0] in "ZX" and not _has_threads(pid):
        return None
    return int(fields[19])


def _has_threads(pid: int) -> bool:
    # The first thread of a killed process is a zombie while the others still hold its ports.
    try:
        return len([*Path(f"/proc/{pid}/task").iterdir()]) > 1
    except OSError:
        return False


def save(path: Path, process: Process) -> None:
    """Write the process file, complete or not at all."""
    draft = path.with_suffix(".new")
    draft.write_text(json.dumps({"pid": process.pid, "start_ticks": process.start_ticks}))
    draft.replace(path)


def load(path: Path) -> Process | None:
    """Return the process of that file if it still runs, else None."""
    try:
        saved = json.loads(path.read_text())
        process = Process(int(saved["pid"]), int(saved["start_ticks"]))
    except (OSError, ValueError, KeyError):
        return None
    return process if process.alive else None


def spawn(
    command: Sequence[str],
    log: Path,
    environment: Mapping[str, str] | None = None,
    *,
    dies_with_parent: bool = False,
) -> Process:
    """Start a background process in a session of its own, output appended to the log.

    With `dies_with_parent` the kernel ends it when the starting *thread* ends
    (prctl(2), PR_SET_PDEATHSIG), so start it from a thread that lives as long.
    """
    line = [*_DIE_WITH_PARENT, *command] if dies_with_parent else list(command)
    with log.open("ab") as output:
        child = subprocess.Popen(
            line,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
            env=None if environment is None else dict(environment),
        )
    process = find(child.pid)
    # A start that failed at once is found by whoever waits for the server.
    child.returncode = 0  # ours to end by `end`; silences the interpreter's own bookkeeping
    return process or Process(child.pid, -1)


def end(processes: Iterable[Process], grace_s: float) -> list[Process]:
    """End the processes: SIGTERM, after the grace SIGKILL; return those that remain."""
    rest = [process for process in processes if process.alive]
    for number, wait_s in ((signal.SIGTERM, grace_s), (signal.SIGKILL, 5.0)):
        if wait_s <= 0:
            continue
        for process in rest:
            _signal(process, number)
        deadline_s = time.monotonic() + wait_s
        while rest and time.monotonic() < deadline_s:
            time.sleep(0.02)
            rest = [process for process in rest if _still_running(process)]
    return rest


def _signal(process: Process, number: signal.Signals) -> None:
    try:
        # A pidfd cannot be reused between the check and the signal, a pid can.
        descriptor = os.pidfd_open(process.pid)
    except OSError:
        return
    try:
        if process.alive:
            signal.pidfd_send_signal(descriptor, number)
    except ProcessLookupError:
        return
    finally:
        os.close(descriptor)


def _still_running(process: Process) -> bool:
    with contextlib.suppress(ChildProcessError):
        os.waitpid(process.pid, os.WNOHANG)
    return process.alive
