"""One published port of a cluster elsewhere: ``python -m localkube.port_forward JSON``.

`kubectl port-forward` picks one pod and ends with it, so it is started again
for as long as this process lives.
"""

import json
import sys
import time
from pathlib import Path

from localkube import processes
from localkube.publish import split

_PAUSE_S = 0.5


def command(kubectl: str, kubeconfig: str, service: str, port: int) -> list[str]:
    """Return the command that carries one port for as long as the pod behind it lives."""
    namespace, name, target = split(service)
    where = ["--kubeconfig", kubeconfig, "--namespace", namespace]
    return [
        kubectl, *where, "port-forward", "--address", "127.0.0.1", f"service/{name}",
        f"{port}:{target}",
    ]  # fmt: skip


def main(arguments: list[str]) -> None:
    """Take ``{"kubectl", "kubeconfig", "service", "port", "log"}`` and serve for ever."""
    plan = json.loads(arguments[0])
    line = command(plan["kubectl"], plan["kubeconfig"], plan["service"], plan["port"])
    while True:
        carrier = processes.spawn(line, Path(plan["log"]), dies_with_parent=True)
        while carrier.alive:
            time.sleep(_PAUSE_S)
        time.sleep(_PAUSE_S)


if __name__ == "__main__":
    main(sys.argv[1:])
