"""Ports on the machine's loopback that lead into an instance."""

import json
import secrets
import socket
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from localkube import processes
from localkube.errors import ClusterError
from localkube.layout import API_PORT, Instance
from localkube.namespaces import joined, module_environment, network_file, pid_file, running, tail

API = "api"
_START_TIMEOUT_S = 10.0
_LOWEST_PORT = 20000
_TRIALS = 100
_OUTGOING_PORTS = Path("/proc/sys/net/ipv4/ip_local_port_range")


def split(service: str) -> tuple[str, str, int]:
    """Split ``NAMESPACE/SERVICE:PORT``; raises `ClusterError` when it is not that."""
    path, _, port = service.rpartition(":")
    namespace, _, name = path.partition("/")
    if not (namespace and name and port.isdigit() and 0 < int(port) < 1 << 16):
        raise ClusterError(f"{service!r}: expected NAMESPACE/SERVICE:PORT with a numeric port")
    return namespace, name, int(port)


def ports(cluster: Instance) -> dict[str, int]:
    """Return the published ports by what they lead to (`api`, or NAMESPACE/SERVICE:PORT)."""
    try:
        saved: dict[str, int] = json.loads(_file(cluster).read_text())
    except (OSError, ValueError):
        return {}
    return saved


def _file(cluster: Instance) -> Path:
    return cluster.state / "ports.json"


def remember(cluster: Instance, key: str, port: int) -> None:
    """Note a published port, so that it is the same the next time."""
    _file(cluster).write_text(json.dumps({**ports(cluster), key: port}, indent=1))


def wait_listening(port: int, deadline_s: float) -> None:
    """Wait until something accepts on the port, or until the (monotonic) deadline."""
    while not _accepts(port) and time.monotonic() < deadline_s:
        time.sleep(0.1)


def free_port() -> int:
    """Return a TCP port that is free on the loopback right now; raises `ClusterError`.

    Below the range from which the kernel takes ports for outgoing connections: one of
    those could sit on the port while its server is restarted.
    """
    lowest_outgoing = int(_OUTGOING_PORTS.read_text().split()[0])
    candidates = range(min(_LOWEST_PORT, lowest_outgoing - 1000), lowest_outgoing)
    for _ in range(_TRIALS):
        port = secrets.choice(candidates)
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port
    raise ClusterError(f"no free port found between {candidates[0]} and {candidates[-1]}")


def process_name(key: str) -> str:
    """Return the name of the forwarding process of a published port."""
    return "forward-" + key.replace("/", "_").replace(":", "_")


def api(cluster: Instance) -> int:
    """Publish the API server; return its port."""
    return _publish(cluster, API, {"host": "127.0.0.1", "port": API_PORT, "is_service": False})


def service(cluster: Instance, text: str) -> int:
    """Publish a Service given as NAMESPACE/SERVICE:PORT; return its port, each time the same."""
    namespace, name, port = split(text)
    host = f"{name}.{namespace}.svc.cluster.local"
    return _publish(cluster, text, {"host": host, "port": port, "is_service": True})


def republish(cluster: Instance) -> None:
    """Start the forwarding of every published Service that does not run."""
    for key in ports(cluster):
        if key != API:
            service(cluster, key)


def _publish(cluster: Instance, key: str, target: Mapping[str, object]) -> int:
    saved = ports(cluster)
    if key in saved and running(cluster, process_name(key)):
        return saved[key]
    # The old port where possible: addresses that people wrote down stay right.
    candidates = [saved[key]] if key in saved else []
    for port in [*candidates, free_port(), free_port(), free_port()]:
        if _start(cluster, key, port, target):
            remember(cluster, key, port)
            return port
    log = cluster.log / f"{process_name(key)}.log"
    raise ClusterError(f"no port could be published for {key}: {tail(log)}")


def _start(cluster: Instance, key: str, port: int, target: Mapping[str, object]) -> bool:
    ready = cluster.run / f"{process_name(key)}.ready"
    ready.unlink(missing_ok=True)
    plan = {
        "listen": port,
        "namespace": network_file(cluster),
        "target": dict(target),
        "ready": str(ready),
    }
    command = [sys.executable, "-m", "localkube.forward", json.dumps(plan)]
    log = cluster.log / f"{process_name(key)}.log"
    process = processes.spawn(joined(cluster, command), log, module_environment())
    processes.save(pid_file(cluster, process_name(key)), process)
    deadline_s = time.monotonic() + _START_TIMEOUT_S
    while process.alive and time.monotonic() < deadline_s:
        # A file, not a trial connection: the port may be another program's, who would accept too.
        if ready.exists():
            return True
        time.sleep(0.02)
    return False


def _accepts(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1):
            return True
    except OSError:
        return False
