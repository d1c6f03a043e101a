"""The newcomer's command, on a cluster of its own, while that of the other tests is idle."""

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import pytest
from e2e.harness import cluster
from e2e.harness.cluster import hack

from environment import ROOT
from firstrun import questions, state

NAME = f"{cluster.NAME}-quickstart"
COMMAND = [sys.executable, "hack/quickstart", "--name", NAME]
WARM_LIMIT_S = 120.0
SILENCE_LIMIT_S = 10.5


@dataclass(frozen=True)
class Run:
    """One whole run: what it printed, its longest silence, its duration, its exit code."""

    text: str
    silence_s: float
    seconds: float
    code: int


@pytest.fixture(scope="module", autouse=True)
def _down(quiet_since: datetime) -> Iterator[None]:
    try:
        yield
    finally:
        hack("hack/quickstart", "--name", NAME, "--down")


def test_a_killed_run_continues_to_a_cited_answer() -> None:
    kill_once_it_says("is up")
    run = quickstart()
    assert run.code == 0, run.text
    assert "embedded, no Kubernetes yet" in run.text
    assert "smollm2:135m has 135 million parameters" in run.text
    assert "mechanics, not the quality" in run.text
    through_the_cluster = run.text.split("(Kubernetes, operator, Ollama)")[1]
    for word in (*questions.chosen().words, questions.chosen().document):
        assert word in through_the_cluster
    assert run.silence_s <= SILENCE_LIMIT_S
    assert embedded_processes() == []


def test_the_next_run_takes_at_most_two_minutes_and_what_it_prints_works() -> None:
    run = quickstart()
    assert run.code == 0, run.text
    assert run.seconds <= WARM_LIMIT_S
    printed = re.search(r"^ask +(.*?)^stop", run.text, re.MULTILINE | re.DOTALL)
    assert printed is not None
    said = plain_shell(
        f'cd {ROOT}; eval "$({COMMAND[0]} hack/cluster --name {NAME} env)"; cd /',
        "kubectl wait --for=condition=Ready cbc/quickstart --timeout=300s",
        printed[1],
    )
    assert "condition met" in said
    assert questions.chosen().words[0] in said.split("event: done")[1]


def test_down_leaves_nothing() -> None:
    hack("hack/quickstart", "--name", NAME, "--down")
    assert not state.folder(NAME).exists()
    assert NAME not in Path("/proc/mounts").read_text()
    assert processes_with(NAME) == []


def quickstart() -> Run:
    began_s = time.monotonic()
    said_s, silence_s, lines = began_s, 0.0, []
    with start() as process:
        assert process.stdout is not None
        for line in process.stdout:
            now_s = time.monotonic()
            silence_s, said_s = max(silence_s, now_s - said_s), now_s
            lines.append(line)
    return Run("".join(lines), silence_s, time.monotonic() - began_s, process.returncode)


def kill_once_it_says(words: str) -> None:
    with start() as process:
        assert process.stdout is not None
        for line in process.stdout:
            if words in line:
                process.kill()
                break


def start() -> subprocess.Popen[str]:
    return subprocess.Popen(
        COMMAND, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def plain_shell(*lines: str) -> str:
    """Run lines in a shell that knows nothing but PATH and where a person's files are."""
    known = {"HOME", "PATH", "XDG_CACHE_HOME", "XDG_STATE_HOME"}
    environment = {name: value for name, value in os.environ.items() if name in known}
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", "\n".join(lines)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=180,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def embedded_processes() -> list[str]:
    return [line for line in processes_with(f"quickstart.state/{NAME}") if "demo" in line]


def processes_with(words: str) -> list[str]:
    own = os.getpid()
    found = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = file.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if words in line and file.parent.name != str(own):
            found.append(line)
    return found
