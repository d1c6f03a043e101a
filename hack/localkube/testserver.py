"""A real etcd and API server on free loopback ports, for tests.

Without namespaces, containers or root: plain child processes. They die with the
process that started them (and with the *thread*: start the server from the main
thread), and what a crash left behind is ended by the next start in that folder.
"""

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from localkube import build, configs, pki, processes, servers
from localkube.api import Api, wait_until
from localkube.errors import ClusterError
from localkube.layout import NODE_IP
from localkube.namespaces import tail
from localkube.processes import Process
from localkube.publish import free_port
from localkube.servers import ControlPlane

_START_TIMEOUT_S = 60.0
_ATTEMPTS = 3
# Without the controller manager nobody makes service accounts, and pods would be refused.
_WITHOUT_ACCOUNTS = ("--disable-admission-plugins=ServiceAccount",)
# Nobody provisions volumes here, and a stub kubelet's claims are Bound without one.
_NO_VOLUMES = (
    "--controllers=*,-persistentvolume-binder-controller,-persistentvolume-expander-controller",
)
# By default each controller makes twenty requests a second: many objects would wait for it.
_EAGER = ("--kube-api-qps=1000", "--kube-api-burst=2000")
_OWNED = ".chatbot-operator-testserver"


@dataclass(frozen=True, slots=True)
class LoopbackServer:
    """A running control plane; all paths below its state folder."""

    plane: ControlPlane
    with_controller_manager: bool

    @property
    def url(self) -> str:
        """The API server's address."""
        return f"https://127.0.0.1:{self.plane.api_port}"

    @property
    def kubeconfig(self) -> Path:
        """The administrator's kubeconfig; the certificates lie beside it as PEM files."""
        return self.plane.pki / "admin.kubeconfig"

    @property
    def certificates(self) -> Path:
        """The folder of ``ca.crt``, ``admin.crt`` and ``admin.key``."""
        return self.plane.pki

    @property
    def audit_log(self) -> Path:
        """JSON lines, one a write request, there before the request is answered."""
        return self.plane.state / "log" / "audit.log"

    @property
    def api(self) -> Api:
        """A client for few plain requests."""
        return Api(self.plane.api_port, self.plane.pki)

    def stop_apiserver(self) -> None:
        """End the API server alone, as a fault does: every watch breaks."""
        self._end("apiserver")

    def start_apiserver(self) -> None:
        """Start the API server again on its port and wait until it is ready."""
        self._run("apiserver", self._apiserver())
        self._wait(self.api.ready)

    def stop(self) -> None:
        """End all processes and remove the folder; may be called twice."""
        for name in ("controller-manager", "apiserver", "etcd"):
            self._end(name)
        shutil.rmtree(self.plane.state, ignore_errors=True)

    def _apiserver(self) -> list[str]:
        extra = () if self.with_controller_manager else _WITHOUT_ACCOUNTS
        bind = ("--bind-address=127.0.0.1",)
        return servers.apiserver(self.plane, self.audit_log, (*bind, *extra))

    def _start(self) -> None:
        self._run("etcd", servers.etcd(self.plane))
        self.start_apiserver()
        if self.with_controller_manager:
            command = servers.controller_manager(self.plane, (*_NO_VOLUMES, *_EAGER))
            self._run("controller-manager", command)
            account = "/api/v1/namespaces/default/serviceaccounts/default"
            self._wait(lambda: self.api.get(account) is not None)

    def _pid_file(self, name: str) -> Path:
        return self.plane.state / "run" / f"{name}.json"

    def _run(self, name: str, command: list[str]) -> None:
        log = self.plane.state / "log" / f"{name}.log"
        process = processes.spawn(command, log, dies_with_parent=True)
        processes.save(self._pid_file(name), process)

    def _end(self, name: str) -> None:
        process = processes.load(self._pid_file(name))
        if process:
            # Killed: the data is thrown away, and a test waits for every graceful second.
            processes.end([process], grace_s=0)

    def _wait(self, holds: Callable[[], bool]) -> None:
        def ended() -> str | None:
            for name in ("etcd", "apiserver"):
                if processes.load(self._pid_file(name)) is None:
                    return f"{name} ended: {tail(self.plane.state / 'log' / f'{name}.log')}"
            return None

        wait_until(holds, "the API server did not become ready", _START_TIMEOUT_S, ended)


def start(state_dir: Path, *, with_controller_manager: bool = False) -> LoopbackServer:
    """Start etcd and kube-apiserver on free ports; build them where they are missing.

    The folder is emptied first, so it must be absent, empty or one of ours. The
    controller manager brings namespaces' end, garbage collection, Deployments and Jobs
    (their pods stay pending without a `stubkubelet`). Raises `ClusterError` with the end of a log.
    """
    _clear(state_dir)
    names = ["etcd", "kube-apiserver"]
    names += ["kube-controller-manager"] if with_controller_manager else []
    binaries = build.binaries(names)
    for attempt in range(_ATTEMPTS):
        server = _prepare(state_dir, binaries, with_controller_manager=with_controller_manager)
        try:
            server._start()  # noqa: SLF001 - the other half of this module's one class
        except ClusterError:
            # Another program may take a free port before the server does.
            server.stop()
            if attempt == _ATTEMPTS - 1:
                raise
        else:
            return server
    raise ClusterError("no attempt was made")


def _prepare(state: Path, binaries: Path, *, with_controller_manager: bool) -> LoopbackServer:
    for folder in ("log", "run", "config"):
        (state / folder).mkdir(parents=True)
    (state / _OWNED).touch()
    (state / "config" / "audit.json").write_text(json.dumps(configs.AUDIT_POLICY))
    ports = _free_ports(4)
    plane = ControlPlane(state, binaries, NODE_IP, *ports)
    server = LoopbackServer(plane, with_controller_manager)
    pki.create(plane.pki, pki.CONTROL_PLANE)
    for user in ("admin", "controller-manager"):
        pki.write_kubeconfig(plane.pki, user, server.url)
    return server


def _free_ports(count: int) -> list[int]:
    ports: set[int] = set()
    while len(ports) < count:
        ports.add(free_port())
    return list(ports)


def _clear(state: Path) -> None:
    if not state.exists():
        return
    if any(state.iterdir()) and not (state / _OWNED).exists():
        raise ClusterError(f"{state} holds something else; name an empty folder")
    left = [processes.load(path) for path in (state / "run").glob("*.json")]
    remaining: list[Process] = processes.end([process for process in left if process], grace_s=2)
    if remaining:
        raise ClusterError(f"processes of an earlier run do not end: {remaining}")
    shutil.rmtree(state)
