"""Starting processes inside an instance's namespaces and cgroup.

`nsenter`, not `ip netns exec`: the latter mounts a fresh /sys, and the kubelet
then finds no cgroups. The namespaces have no name; they live as long as a
process of the instance does, and the keeper is the one that always does.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from localkube import cgroups, processes
from localkube.errors import ClusterError
from localkube.layout import NODE_IP, SERVICE_RANGE, Instance, redirected_folders
from localkube.processes import Process

_SOURCE = Path(__file__).resolve().parent.parent
KEEPER = "keeper"
# Joins the cgroups first, so that not one process is ever outside of them.
_JOIN = 'while [ "$1" != -- ]; do echo 0 > "$1" || exit 126; shift; done; shift; exec "$@"'
_KEEPER_TIMEOUT_S = 10.0


def pid_file(cluster: Instance, name: str) -> Path:
    """Return the process file of a server."""
    return cluster.run / f"{name}.json"


def running(cluster: Instance, name: str) -> Process | None:
    """Return the running process of a server, or None."""
    return processes.load(pid_file(cluster, name))


def joined(cluster: Instance, command: Sequence[str]) -> list[str]:
    """Return the command line that runs a command inside the instance's cgroup."""
    leaves = [str(leaf) for leaf in cgroups.create(cluster.cgroup)]
    return ["sh", "-c", _JOIN, "join", *leaves, "--", *command]


def start_keeper(cluster: Instance) -> Process:
    """Make the namespaces with their mounts; return the process that keeps them.

    Raises `ClusterError` when the mounts are not in place within a few seconds.
    """
    ready = cluster.run / "keeper.ready"
    ready.unlink(missing_ok=True)
    redirects = redirected_folders(cluster)
    for folder in redirects.values():
        folder.mkdir(parents=True, exist_ok=True)
    plan = {
        "redirects": {str(target): str(source) for target, source in redirects.items()},
        "values": str(cluster.state / "node" / "kernel-values"),
        "volumes": str(cluster.volumes),
        "ready": str(ready),
    }
    module = [sys.executable, "-m", "localkube.keeper", json.dumps(plan)]
    command = ["unshare", "--mount", "--net", "--propagation", "slave", *module]
    log = cluster.log / "keeper.log"
    keeper = processes.spawn(joined(cluster, command), log, module_environment())
    processes.save(pid_file(cluster, KEEPER), keeper)
    deadline_s = time.monotonic() + _KEEPER_TIMEOUT_S
    while not ready.exists():
        if not keeper.alive or time.monotonic() > deadline_s:
            raise ClusterError(f"no namespaces could be made: {tail(log)}")
        time.sleep(0.02)
    return keeper


def enter(cluster: Instance) -> list[str]:
    """Return the command prefix that enters the namespaces; raises `ClusterError` when down."""
    keeper = running(cluster, KEEPER)
    if keeper is None:
        raise ClusterError(f"the cluster {cluster.name!r} is not running; start it with 'up'")
    return ["nsenter", f"--target={keeper.pid}", "--mount", "--net", "--"]


def network_file(cluster: Instance) -> str:
    """Return the file of the network namespace; raises `ClusterError` when down."""
    keeper = running(cluster, KEEPER)
    if keeper is None:
        raise ClusterError(f"the cluster {cluster.name!r} is not running; start it with 'up'")
    return f"/proc/{keeper.pid}/ns/net"


def set_up_network(cluster: Instance) -> None:
    """Give the namespace its loopback, the node's address and the route to Services."""
    prefix = enter(cluster)
    for command in (
        ["ip", "link", "set", "lo", "up"],
        ["ip", "address", "replace", f"{NODE_IP}/32", "dev", "lo"],
        # So that processes on the node reach Services too, not pods alone.
        ["ip", "route", "replace", SERVICE_RANGE, "dev", "lo"],
        ["sysctl", "-qw", "net.ipv4.ip_forward=1"],
    ):
        subprocess.run([*prefix, *command], check=True, capture_output=True, timeout=10)


def start(cluster: Instance, name: str, command: Sequence[str]) -> Process:
    """Start a server in the namespaces and remember it."""
    line = joined(cluster, [*enter(cluster), *command])
    process = processes.spawn(line, cluster.log / f"{name}.log")
    processes.save(pid_file(cluster, name), process)
    return process


def module_environment() -> dict[str, str]:
    """Return the environment in which ``python -m localkube...`` finds this package."""
    return {**os.environ, "PYTHONPATH": str(_SOURCE), "PYTHONDONTWRITEBYTECODE": "1"}


def tail(log: Path, lines: int = 8) -> str:
    """Return the last lines of a log."""
    try:
        return "\n".join(log.read_text(errors="replace").splitlines()[-lines:])
    except OSError:
        return f"no log at {log}"
