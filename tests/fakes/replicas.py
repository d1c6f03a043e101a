"""Two replicas of the operator as real processes with one Lease."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from chatbot_core import names
from chatbot_operator import lease
from chatbot_operator.kinds import Object, Ref, collection_path, object_path
from localkube.api import wait_until
from localkube.publish import free_port
from localkube.testserver import LoopbackServer

LEASE = Ref("Lease", "chatbot-system", "chatbot-operator")
_PROGRAM = Path(sys.executable).parent / "chatbot-operator"
_READY_TIMEOUT_S = 60.0
#: Longer than any promise: what takes so long is broken, not slow.
_TAKE_OVER_TIMEOUT_S = 60.0
_LEADS = re.compile(r"^chatbot_operator_leader 1\.0$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Replica:
    """One running operator and its port of probes and metrics."""

    process: subprocess.Popen[bytes]
    port: int
    log: Path

    def answers(self, path: str) -> str | None:
        """Return the body of a 200, else None."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=2) as answer:
                body: bytes = answer.read()
        except OSError:
            return None
        return body.decode()

    def leads(self) -> bool:
        """Whether it says that it leads."""
        return bool(_LEADS.search(self.answers("/metrics") or ""))

    def end(self) -> None:
        """Kill it, also while it is frozen."""
        self.process.kill()
        self.process.wait()


@dataclass(frozen=True, slots=True)
class Pair:
    """Two replicas; both are ready, and one leads."""

    server: LoopbackServer
    replicas: tuple[Replica, Replica]

    def leader(self) -> Replica:
        """Return the one that leads. Raises ClusterError when none or both do."""
        found: list[Replica] = []

        def exactly_one() -> bool:
            found[:] = [one for one in self.replicas if one.leads()]
            return len(found) == 1

        wait_until(exactly_one, "exactly one replica leads", _TAKE_OVER_TIMEOUT_S, lambda: None)
        return found[0]

    def other(self, replica: Replica) -> Replica:
        """Return the other one."""
        return next(one for one in self.replicas if one is not replica)

    def holder(self) -> str:
        """Return the identity in the Lease, "" where there is none."""
        live = self.server.api.get(object_path(LEASE))
        return "" if live is None else lease.record_of(live).holder


@contextmanager
def pair(server: LoopbackServer, kubeconfig: Path, *namespaces: str) -> Iterator[Pair]:
    """Run two replicas for these namespaces until the context ends."""
    started: list[Replica] = []
    try:
        started.extend(_start(server, kubeconfig, namespaces) for _ in range(2))
        both = Pair(server, (started[0], started[1]))
        for one in started:
            wait_until(_ready(one), f"a ready operator ({one.log})", _READY_TIMEOUT_S, lambda: None)
        both.leader()
        yield both
    finally:
        for one in started:
            one.end()
        _free_lease(server)


def take_over_s(both: Pair, cluster: Object, number: signal.Signals) -> float:
    """Signal the leader and create an object; return when it has its ConfigMap, in seconds."""
    meta = cluster["metadata"]
    leader = both.leader()
    began_s = time.monotonic()
    leader.process.send_signal(number)
    both.server.api.create(collection_path(names.KIND, meta["namespace"]), cluster)
    config = object_path(Ref("ConfigMap", meta["namespace"], names.config_map(meta["name"])))
    wait_until(
        lambda: both.server.api.get(config) is not None,
        "the other replica takes over",
        _TAKE_OVER_TIMEOUT_S,
        lambda: None,
    )
    return time.monotonic() - began_s


def _free_lease(server: LoopbackServer) -> None:
    """Spare the next pair the wait for those that were killed."""
    server.api.request("DELETE", object_path(LEASE))
    server.api.create(collection_path(LEASE.kind, LEASE.namespace), lease.missing(LEASE, ""))


def _ready(one: Replica) -> Callable[[], bool]:
    return lambda: one.answers("/readyz") is not None


def _start(server: LoopbackServer, kubeconfig: Path, namespaces: tuple[str, ...]) -> Replica:
    port = free_port()
    log = server.plane.state / "log" / f"operator-{port}.log"
    environment = {
        "PATH": os.environ["PATH"],
        "KUBECONFIG": str(kubeconfig),
        "WATCH_NAMESPACES": ",".join(namespaces),
        "LEADER_ELECT": f"{LEASE.namespace}/{LEASE.name}",
        "PORT": str(port),
    }
    with log.open("ab") as output:
        process = subprocess.Popen([_PROGRAM], env=environment, stdout=output, stderr=output)
    return Replica(process, port, log)
