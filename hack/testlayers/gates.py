"""The gates: style, types, import contracts and generated files."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path

from environment import PYTHON, ROOT
from testlayers.layers import GATES
from testlayers.tally import Outcome

HEARTBEAT_S = 8.0


@dataclass(frozen=True, slots=True)
class Gate:
    """One command that must exit with 0."""

    name: str
    command: tuple[str, ...]


def gates() -> tuple[Gate, ...]:
    """Return every gate, the slowest first so that the others run beside it."""
    tools = PYTHON.parent
    return (
        Gate("types", (str(tools / "mypy"), *_typed())),
        Gate("lint", (str(tools / "ruff"), "check", "--quiet", "--output-format=concise", ".")),
        Gate("format", (str(tools / "ruff"), "format", "--check", "--quiet", ".")),
        Gate("imports", (str(tools / "lint-imports"),)),
        Gate("generated files", (str(PYTHON), "hack/gen_crds.py", "--check")),
    )


def _typed() -> list[str]:
    hack = ROOT / "hack"
    packages = [path.parent.name for path in sorted(hack.glob("*/__init__.py"))]
    modules = [path.stem for path in sorted(hack.glob("*.py"))]
    product = ["chatbot_core", "chatbot_operator", "chatbot_runtime"]
    flags = [("-p", name) for name in (*product, *packages)] + [("-m", name) for name in modules]
    return [word for flag in flags for word in flag]


def run(say: Callable[[str], None]) -> Outcome:
    """Run all gates, two at a time; print the output of those that fail."""
    began_s = time.monotonic()
    failed = 0
    with ThreadPoolExecutor(max_workers=2) as pool:
        pending = {pool.submit(_run, gate) for gate in gates()}
        while pending:
            done, pending = wait(pending, timeout=HEARTBEAT_S)
            for future in done:
                gate, code, output = future.result()
                if code:
                    failed += 1
                    say(f"FAILED gate {gate.name}: {' '.join(_short(gate))}\n{output.rstrip()}")
            if pending and not done:
                say(f"gates: {len(pending)} still running, {time.monotonic() - began_s:.0f} s")
    passed = len(gates()) - failed
    return Outcome(GATES, passed, failed, 0, time.monotonic() - began_s)


def _short(gate: Gate) -> list[str]:
    return [Path(gate.command[0]).name, *gate.command[1:4]]


def _run(gate: Gate) -> tuple[Gate, int, str]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(("core", "operator", "runtime"))}
    done = subprocess.run(
        gate.command,
        cwd=ROOT,
        env=environment,
        check=False,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )
    return gate, done.returncode, done.stdout
