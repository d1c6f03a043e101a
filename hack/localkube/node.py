"""The provider `node`: a real control plane and one real node without Docker."""

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from localkube import (
    build,
    cgroups,
    configs,
    debian,
    machine,
    namespaces,
    pki,
    preflight,
    processes,
    publish,
    servers,
)
from localkube.api import Api, wait_until
from localkube.errors import ClusterError
from localkube.images import scratch_image
from localkube.layout import API_PORT, NODE_NAME, PAUSE_IMAGE, Instance, redirected_folders
from localkube.progress import Progress
from localkube.toolchain import KUBECTL, locate

_START_TIMEOUT_S = 60.0
_INSIDE = f"https://127.0.0.1:{API_PORT}"
_USERS = ("controller-manager", "scheduler", "proxy", "coredns", "node")


def up(cluster: Instance, progress: Progress) -> None:
    """Start the cluster unless it runs.

    One that was up before (its machine was restarted, a server ended) comes back with its
    objects, images and volumes; what an interrupted first start left is removed first.

    Raises `CannotRunHereError` for what this machine lacks, `ClusterError` when a
    server does not come up, with the end of its log.
    """
    preflight.check_node(cluster)
    with machine.locked(cluster.name):
        if healthy(cluster):
            publish.republish(cluster)
            progress.line(f"cluster {cluster.name!r} is running already")
            return
        if (cluster.state / "complete").exists():
            progress.line("starting again what was up before; its objects and volumes are kept")
            _forget_processes(cluster)
        elif cluster.state.exists() or cgroups.exists(cluster.cgroup):
            progress.line("removing what an earlier, interrupted run left")
            _remove(cluster)
        binaries, kubectl = _parts(progress)
        _write_files(cluster, binaries, kubectl)
        progress.line("starting the control plane")
        machine.enter(cluster.name, redirected_folders(cluster))
        namespaces.start_keeper(cluster)
        namespaces.set_up_network(cluster)
        _start_servers(cluster, progress)
    progress.line(f"cluster {cluster.name!r} is up")


def healthy(cluster: Instance) -> bool:
    """Whether a finished start is there and everything it started still works."""
    if not (cluster.state / "complete").exists():
        return False
    names = (namespaces.KEEPER, *servers.NODE_SERVERS, publish.process_name(publish.API))
    if not all(namespaces.running(cluster, name) for name in names):
        return False
    api = client(cluster)
    return api.ready() and api.node_ready(NODE_NAME)


def client(cluster: Instance) -> Api:
    """Return a client of the published API server."""
    return Api(publish.ports(cluster).get(publish.API, 0), cluster.pki)


def _forget_processes(cluster: Instance) -> None:
    # Nothing of this outlives the processes it describes; what it says would be wrong now.
    cgroups.destroy(cluster.cgroup)
    inside = cluster.state / "node"
    for name in ("containerd/state", "run-containerd", "pod-addresses", "cni", "kubelet"):
        shutil.rmtree(inside / name, ignore_errors=True)
    shutil.rmtree(cluster.run, ignore_errors=True)
    cluster.containerd_socket.unlink(missing_ok=True)


def _parts(progress: Progress) -> tuple[Path, Path]:
    # Downloads use the network and the compile the processor, so they run side by side.
    with ThreadPoolExecutor(2) as pool:
        packages = pool.submit(debian.install, progress)
        kubectl = pool.submit(locate, KUBECTL, progress)
        binaries = build.binaries(servers.BINARIES, progress)
        packages.result()
        return binaries, kubectl.result()


def _write_files(cluster: Instance, binaries: Path, kubectl: Path) -> None:
    plugins = debian.plugin_folder()
    if plugins is None:
        raise ClusterError("the CNI plug-ins ptp, host-local and loopback are missing")
    for folder in (cluster.log, cluster.run, cluster.commands, cluster.config / "cni"):
        folder.mkdir(parents=True, exist_ok=True)
    # Container processes of other users pass through on the way to their volumes.
    cluster.state.chmod(0o711)
    if not (cluster.state / "complete").exists():
        pki.create(cluster.pki, pki.NODE)
        for user in _USERS:
            pki.write_kubeconfig(cluster.pki, user, _INSIDE)
    (cluster.commands / "kubectl").unlink(missing_ok=True)
    (cluster.commands / "kubectl").symlink_to(kubectl)
    snapshotter = _snapshotter(cluster.state)
    (cluster.state / "provider").write_text("node")
    texts = {
        "cni/10-pods.conflist": configs.pod_network(cluster),
        "containerd.toml": configs.containerd(cluster, str(plugins), snapshotter),
        "kubelet.json": configs.kubelet(cluster),
        "Corefile": configs.corefile(cluster),
        "audit.json": json.dumps(configs.AUDIT_POLICY, indent=1),
        "start.json": json.dumps({"binaries": str(binaries), "snapshotter": snapshotter}),
    }
    for name, text in texts.items():
        (cluster.config / name).write_text(text)
    program = (binaries / "pause").read_bytes()
    archive = scratch_image(PAUSE_IMAGE, "/pause", program, preflight.architecture())
    (cluster.config / "pause.tar").write_bytes(archive)


def _snapshotter(folder: Path) -> str:
    # An overlay cannot lie on an overlay, which is what a container has as its root.
    kinds = {"/": ""}
    for line in Path("/proc/mounts").read_text().splitlines():
        _, mount, kind, *_ = line.split()
        kinds[mount] = kind
    nearest = next(path for path in (folder, *folder.parents) if str(path) in kinds)
    return "native" if kinds[str(nearest)] == "overlay" else "overlayfs"


def _commands(cluster: Instance) -> dict[str, list[str]]:
    started = json.loads((cluster.config / "start.json").read_text())
    containerd = debian.command("containerd") or "containerd"
    return dict(servers.node_commands(cluster, Path(started["binaries"]), containerd))


def _start_servers(cluster: Instance, progress: Progress) -> None:
    commands = _commands(cluster)
    for name in ("etcd", "apiserver", "containerd"):
        namespaces.start(cluster, name, commands[name])
    port = publish.api(cluster)
    url = f"https://127.0.0.1:{port}"
    pki.write_kubeconfig(cluster.pki, "admin", url, cluster.kubeconfig)
    api = client(cluster)
    _wait(cluster, api.ready, "the API server", ("etcd", "apiserver", publish.process_name("api")))
    for name in ("controller-manager", "scheduler", "proxy", "coredns"):
        namespaces.start(cluster, name, commands[name])
    _wait(cluster, lambda: _containerd_answers(cluster), "containerd", ("containerd",))
    load_images(cluster, [cluster.config / "pause.tar"])
    # Kubernetes writes times in whole seconds.
    started = datetime.now(UTC).replace(microsecond=0)
    namespaces.start(cluster, "kubelet", commands["kubelet"])
    api.create("/apis/storage.k8s.io/v1/storageclasses", configs.STORAGE_CLASS)
    progress.line(f"API server at {url}; waiting for the node")
    _wait(cluster, lambda: api.node_ready(NODE_NAME, started), "the node", servers.NODE_SERVERS)
    (cluster.state / "complete").touch()
    publish.republish(cluster)


def _wait(cluster: Instance, holds: Callable[[], bool], what: str, needs: Sequence[str]) -> None:
    def broken() -> str | None:
        for name in needs:
            if namespaces.running(cluster, name) is None:
                log = cluster.log / f"{name}.log"
                return f"{name} ended, the last lines of {log}:\n{namespaces.tail(log)}"
        return None

    try:
        wait_until(holds, f"{what} did not become ready", _START_TIMEOUT_S, broken)
    except ClusterError as error:
        raise ClusterError(f"{error}\nlogs: {cluster.log}") from error


def _ctr(cluster: Instance, *arguments: str) -> subprocess.CompletedProcess[str]:
    ctr = [debian.command("ctr") or "ctr", "--address", str(cluster.containerd_socket)]
    command = [*ctr, "--namespace", "k8s.io", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)


def _containerd_answers(cluster: Instance) -> bool:
    return _ctr(cluster, "version").returncode == 0


def load_images(cluster: Instance, archives: Sequence[Path]) -> None:
    """Import docker archives into the container runtime; raises `ClusterError` when one fails."""
    started = json.loads((cluster.config / "start.json").read_text())
    for archive in archives:
        importing = ("images", "import", "--snapshotter", started["snapshotter"], str(archive))
        done = _ctr(cluster, *importing)
        if done.returncode != 0:
            raise ClusterError(f"cannot load {archive}: {(done.stderr or done.stdout).strip()}")


def down(cluster: Instance, progress: Progress) -> None:
    """End the cluster and remove every trace of it; nothing to do is fine too."""
    with machine.locked(cluster.name):
        _remove(cluster)
    progress.line(f"cluster {cluster.name!r} is gone")


def _remove(cluster: Instance) -> None:
    # Mounts, pod networks and namespaces end with the last process; no order to keep.
    cgroups.destroy(cluster.cgroup)
    _remove_folder(cluster.state)
    machine.leave(cluster.name)


def _remove_folder(folder: Path) -> None:
    inside = f"{folder}/"
    mounts = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()]
    held = [mount for mount in mounts if mount.startswith(inside)]
    if held:
        raise ClusterError(f"not removed, because something is mounted there: {', '.join(held)}")
    if folder.exists():
        shutil.rmtree(folder)
    with suppress(OSError):
        folder.parent.rmdir()


def publish_service(cluster: Instance, text: str) -> int:
    """Publish a Service given as NAMESPACE/SERVICE:PORT; return its port, each time the same."""
    with machine.locked(cluster.name):
        return publish.service(cluster, text)


def stop(cluster: Instance, name: str) -> None:
    """End one server and leave it ended, as a fault does."""
    _check(name)
    process = namespaces.running(cluster, name)
    left = processes.end([process], grace_s=0) if process else []
    if left:
        raise ClusterError(f"{name} (pid {left[0].pid}) does not end")


def start(cluster: Instance, name: str) -> None:
    """Start one server that is ended."""
    _check(name)
    if namespaces.running(cluster, name) is None:
        namespaces.start(cluster, name, _commands(cluster)[name])


def _check(name: str) -> None:
    if name not in servers.NODE_SERVERS:
        raise ClusterError(f"no such server: {name}; there are: {', '.join(servers.NODE_SERVERS)}")


def shell(cluster: Instance, command: Sequence[str]) -> int:
    """Run a command in the instance's network and mounts; return its exit code."""
    environment = {**os.environ, "KUBECONFIG": str(cluster.kubeconfig)}
    line = [*namespaces.enter(cluster), *command]
    return subprocess.run(line, check=False, env=environment).returncode
