"""Runs one process of pytest for a group of layers, watches it, ends it when it hangs."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from environment import PYTHON, ROOT
from testlayers.layers import Layer
from testlayers.tally import Outcome, Tally

Say = Callable[[str], None]
HEARTBEAT_S = 8.0
POLL_S = 0.2
#: How long an interrupted pytest may take to tear its fixtures down: a cluster goes slowly.
TEAR_DOWN_S = 90.0
KILLED = "killed"


def has_tests(layer: Layer) -> bool:
    """Return whether the layer's folder holds a test at all."""
    return any((ROOT / "tests" / layer.name).rglob("test_*.py"))


@dataclass(slots=True)
class Watch:
    """One running pytest: its events so far and when something was last printed."""

    events: Path
    say: Say
    tally: Tally = field(default_factory=Tally)
    read_bytes: int = 0
    began_s: float = field(default_factory=time.monotonic)
    said_s: float = field(default_factory=time.monotonic)

    @property
    def elapsed_s(self) -> float:
        """Return the seconds since the start."""
        return time.monotonic() - self.began_s

    def look(self) -> None:
        """Read new events; print failures at once, and a heartbeat when nothing was said."""
        with self.events.open("rb") as file:
            file.seek(self.read_bytes)
            complete = file.read().rpartition(b"\n")[0]
        self.read_bytes += len(complete) + 1 if complete else 0
        for line in complete.decode().splitlines():
            if news := self.tally.feed(line):
                self._tell(news)
        if time.monotonic() - self.said_s > HEARTBEAT_S:
            ends = self.tally.ends()
            counts = f"{ends.count('passed')} passed, {ends.count('failed')} failed"
            self._tell(f"  {self.elapsed_s:.0f} s, {counts}, now {self.tally.running or '...'}")

    def _tell(self, text: str) -> None:
        self.said_s = time.monotonic()
        self.say(text)


def command(layers: Sequence[Layer], extra: Sequence[str]) -> list[str]:
    """Return the command line of pytest for these layers."""
    order = () if all(layer.random_order for layer in layers) else ("-p", "no:randomly")
    hang_s = min(layer.hang_s for layer in layers)
    return [
        str(PYTHON),
        *("-m", "pytest", "-p", "testlayers.plugin", *order),
        *("-q", "--no-header", "--tb=short", "-o", f"faulthandler_timeout={hang_s:.0f}"),
        *extra,
        *(f"tests/{layer.name}" for layer in layers),
    ]


def run(layers: Sequence[Layer], say: Say, extra: Sequence[str] = ()) -> list[Outcome]:
    """Run the layers in one process; return one outcome each. Prints pytest's words on failure."""
    say(f"running {' '.join(layer.name for layer in layers)}")
    with tempfile.TemporaryDirectory(prefix="chatbot-test-") as folder:
        output, events = Path(folder, "output"), Path(folder, "events")
        events.touch()
        watch = Watch(events, say)
        with output.open("wb") as sink:
            code = _watched(layers, command(layers, extra), watch, sink.fileno())
        outcomes = [watch.tally.outcome(layer.name) for layer in layers]
        if len(layers) > 1:
            say(f"{' '.join(layer.name for layer in layers)} together {watch.elapsed_s:.1f} s")
        if code != 0:
            say(output.read_text(errors="replace").rstrip())
        if code == KILLED:
            limit_s = max(layer.kill_s for layer in layers)
            say(f"ended after {limit_s:.0f} s; hung in {watch.tally.running or 'collection'}")
    return _explained(outcomes, code, watch)


def _explained(outcomes: list[Outcome], code: int | str, watch: Watch) -> list[Outcome]:
    """Give a failed process that no test explains to the layer it was in."""
    if len(outcomes) == 1:
        one = outcomes[0]
        outcomes = [Outcome(one.layer, one.passed, one.failed, one.skipped, watch.elapsed_s)]
    if code == 0 or any(one.failed for one in outcomes):
        return outcomes
    if code != KILLED and any(one.skipped for one in outcomes):
        return outcomes
    last = next((one for one in outcomes if watch.tally.running.find(f"/{one.layer}/") > 0), None)
    blamed = last or outcomes[-1]
    return [
        Outcome(one.layer, one.passed, one.failed + (one is blamed), one.skipped, one.seconds)
        for one in outcomes
    ]


def _watched(layers: Sequence[Layer], line: list[str], watch: Watch, sink: int) -> int | str:
    environment = {
        **os.environ,
        "CHATBOT_TEST_EVENTS": str(watch.events),
        "PYTHONPATH": str(ROOT / "hack"),
        "PYTHONUNBUFFERED": "1",
    }
    kill_s = max(layer.kill_s for layer in layers)
    # A session of its own, so that whatever a hung test started ends with it.
    with subprocess.Popen(
        line, cwd=ROOT, env=environment, stdout=sink, stderr=sink, start_new_session=True
    ) as process:
        try:
            while process.poll() is None and watch.elapsed_s < kill_s:
                time.sleep(POLL_S)
                watch.look()
        finally:
            hung = process.poll() is None
            if hung:
                _end(process, watch)
        watch.look()
        return KILLED if hung else process.returncode


def _end(process: subprocess.Popen[bytes], watch: Watch) -> None:
    """Interrupt, so that fixtures tear down; then end the whole group."""
    running = watch.tally.running
    process.send_signal(signal.SIGINT)
    deadline_s = time.monotonic() + TEAR_DOWN_S
    while process.poll() is None and time.monotonic() < deadline_s:
        time.sleep(POLL_S)
        watch.look()
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    watch.tally.running = running
