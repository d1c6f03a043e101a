"""Measure what the operator takes for many objects; started by `hack/bench/operator`.

A real etcd, API server and controller manager run beside it; the pods run on a stub kubelet and
the runtimes behind one address, so no container runs. The last line of stdout is one JSON object.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import fcntl
import hashlib
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

from chatbot_core.errors import ChatbotError
from chatbot_operator.kube import connect
from localkube import operated, processes, stubkubelet
from localkube.errors import ClusterError
from localkube.layout import cache_folder
from localkube.stubkubelet import Behaviour
from localkube.testserver import LoopbackServer
from operatorbench import failover, fleet, hundred, phases, runtimes
from operatorbench.audit import AuditLog
from operatorbench.phases import Bench
from operatorbench.runtimes import Runtimes
from operatorbench.subject import Subject

ROOT: Final = Path(__file__).resolve().parents[2]
#: What the goals of memory and restart speak of.
STATED_CLUSTERS: Final = 500
GOALS: Final = {
    "rss_mb": 300.0,
    "edit_to_write_p99_ms": 250.0,
    "restart_to_consistent_s": 20.0,
    "idle_writes": 0.0,
    "status_writes_per_minute_per_cluster": 1.0,
    "failover_kill_s": 20.0,
    "failover_term_s": 2.0,
    "plan_100_shards_ms": 5.0,
    "writes_not_counted_alike": 0.0,
}
_AT_STATED: Final = frozenset({"rss_mb", "restart_to_consistent_s"})


@dataclass(frozen=True, slots=True)
class Size:
    """How much is done: objects, edits, and the seconds of the quiet and the busy window."""

    clusters: int
    edits: int
    idle_s: float
    traffic_s: float


QUICK: Final = Size(clusters=10, edits=20, idle_s=5.0, traffic_s=0.0)


def _say(text: str) -> None:
    sys.stderr.write(f"{time.strftime('%H:%M:%S')} {text}\n")
    sys.stderr.flush()


@contextlib.contextmanager
def _state() -> Iterator[Path]:
    """Yield this checkout's folder, which no other run uses; a crash leaves it to the next."""
    mark = hashlib.sha256(str(ROOT).encode()).hexdigest()[:16]
    folder = cache_folder(os.environ) / "bench"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / f"operator-{mark}.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise ClusterError("another run of this benchmark is under way here") from None
        yield folder / f"operator-{mark}"


@asynccontextmanager
async def _bench(server: LoopbackServer, size: Size) -> AsyncIterator[Bench]:
    state, keys = server.plane.state, fleet.keys(size.clusters)
    for namespace in sorted({namespace for namespace, _ in keys}):
        obj = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}}
        server.api.create("/api/v1/namespaces", obj)
    subject = Subject(state, operated.write_operator_kubeconfig(server))
    os.environ["KUBECONFIG"] = str(server.kubeconfig)
    kube = await connect(user_agent="bench")
    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(kube.close)
        view = await stack.enter_async_context(fleet.watching(kube))
        answers = Runtimes(view.documents, view.tokens)
        await stack.enter_async_context(runtimes.serving(answers))
        kubelet = stubkubelet.start(
            server.url,
            server.certificates,
            state / "log" / "stubkubelet.log",
            Behaviour(address=answers.address),
        )
        processes.save(state / "run" / "stubkubelet.json", kubelet)
        stack.callback(processes.end, [kubelet], 0)
        stack.callback(subject.stop)
        yield Bench(subject, view, answers, AuditLog(server.audit_log), keys)


async def measure(server: LoopbackServer, size: Size) -> Bench:
    """Return the run with its figures; a phase that fails ends it and is named in `trouble`."""
    async with _bench(server, size) as bench:
        try:
            await _phases(bench, size)
        except (TimeoutError, RuntimeError, ChatbotError) as error:
            bench.trouble = str(error)
        bench.subject.stop()
        bench.figures["rss_peak_mb"] = bench.subject.peak_kb / 1000
        bench.figures["clusters"] = size.clusters
        return bench


async def _phases(bench: Bench, size: Size) -> None:
    bench.subject.start()
    await phases.ready(bench.subject)
    _say(f"creating {size.clusters} objects")
    await phases.create(bench)
    _say(f"editing {size.edits} times")
    await phases.edit(bench, size.edits)
    _say(f"doing nothing for {size.idle_s:.0f} s")
    await phases.idle(bench, size.idle_s)
    if size.traffic_s:
        _say(f"traffic for {size.traffic_s:.0f} s")
        await phases.traffic(bench, size.traffic_s)
    await phases.compare(bench)
    _say("killing and starting the operator")
    await phases.restart(bench)
    _say("planning for a hundred shards")
    await hundred.measure(bench)
    if size.traffic_s:
        _say("ending leaders")
        await failover.measure(bench)


def result(bench: Bench, size: Size) -> dict[str, Any]:
    """Return the result object."""
    small = size.clusters <= STATED_CLUSTERS
    goals = {
        key: most
        for key, most in GOALS.items()
        if key in bench.figures and (small or key not in _AT_STATED)
    }
    return {
        "bench": "operator",
        "figures": {key: round(value, 2) for key, value in sorted(bench.figures.items())},
        "goals": {key: f"<= {most:g}" for key, most in goals.items()},
        "met": {key: bench.figures[key] <= most for key, most in goals.items()},
        "calls": bench.calls,
        "conditions": {
            "cores": os.cpu_count(),
            "python": platform.python_version(),
            "kopf": version("kopf"),
            "kubernetes": version("kubernetes"),
            "pods": "stub kubelet",
            "runtimes": "fake runtime over HTTP",
            "children_per_cluster": f"about 40, {fleet.SHARDS} shards",
            "edits": size.edits,
            "idle_s": size.idle_s,
            "traffic_s": size.traffic_s,
            "commit": _commit(),
            **({"ended_early": bench.trouble} if bench.trouble else {}),
        },
    }


def _commit() -> str:
    command = ["git", "-C", str(ROOT), "rev-parse", "--short", "HEAD"]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    one = argparse.ArgumentParser(prog="hack/bench/operator", description=__doc__)
    one.add_argument("--clusters", type=int, default=STATED_CLUSTERS, metavar="N")
    one.add_argument("--quick", action="store_true", help=f"{QUICK.clusters} objects, no traffic")
    one.add_argument("--check", action="store_true", help="exit 1 when a goal is missed")
    one.add_argument("--idle-minutes", type=float, default=1.0, metavar="M")
    return one


def main() -> int:
    """Measure and print the result."""
    arguments = parser().parse_args()
    size = Size(arguments.clusters, 100, 60 * arguments.idle_minutes, 60.0)
    size = QUICK if arguments.quick else size
    try:
        with _state() as state, operated.control_plane(state) as server:
            bench = asyncio.run(measure(server, size))
    except ClusterError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    answer = result(bench, size)
    if bench.trouble:
        sys.stderr.write(f"ended early: {bench.trouble}\n")
    sys.stdout.write(json.dumps(answer) + "\n")
    return int(bool(bench.trouble) or (arguments.check and not all(answer["met"].values())))
