"""The providers `kind` and `current`: clusters that others run.

Their API servers are reachable from the machine already, so an instance is a
kubeconfig of its own and a few forwarding processes.
"""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from localkube import configs, processes, publish
from localkube.errors import CannotRunHereError, ClusterError
from localkube.layout import Instance
from localkube.namespaces import module_environment, pid_file, running
from localkube.progress import Estimate, Progress
from localkube.toolchain import KUBECTL, locate

_READY_TIMEOUT_S = 20.0


def docker_answers() -> bool:
    """Whether a Docker daemon answers within two seconds."""
    if shutil.which("docker") is None:
        return False
    probe = ["docker", "version", "--format", "{{.Server.Version}}"]
    try:
        done = subprocess.run(probe, capture_output=True, check=False, timeout=2)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0


def kind_installed() -> bool:
    """Whether the command kind is on PATH."""
    return shutil.which("kind") is not None


def kind_up(cluster: Instance, progress: Progress) -> None:
    """Create the kind cluster unless it answers; raises when Docker or kind is missing."""
    kind = _kind()
    if cluster.kubeconfig.exists() and _ready(cluster):
        progress.line(f"cluster {cluster.name!r} is running already")
        return
    _delete_kind(cluster, kind)
    _prepare(cluster, "kind", progress)
    (cluster.config / "audit.json").write_text(json.dumps(configs.AUDIT_POLICY, indent=1))
    (cluster.config / "kind.json").write_text(configs.kind_cluster(cluster))
    names = ["--name", cluster.kind_name, "--kubeconfig", str(cluster.kubeconfig)]
    command = [kind, "create", "cluster", *names, "--config", f"{cluster.config}/kind.json"]
    command += ["--wait", "120s"]
    progress.run(command, dict(os.environ), Path("/"), Estimate("creating the kind cluster", 90))
    progress.line(f"cluster {cluster.name!r} is up")


def kind_down(cluster: Instance, progress: Progress) -> None:
    """Delete the kind cluster and the instance's folder."""
    _end_forwarding(cluster)
    _delete_kind(cluster, _kind())
    shutil.rmtree(cluster.state, ignore_errors=True)
    progress.line(f"cluster {cluster.name!r} is gone")


def kind_load_images(cluster: Instance, archives: Sequence[Path]) -> None:
    """Load docker archives into the kind node."""
    for archive in archives:
        _checked([_kind(), "load", "image-archive", str(archive), "--name", cluster.kind_name])


def _kind() -> str:
    kind = shutil.which("kind")
    if kind is None:
        raise CannotRunHereError("the provider 'kind' needs the command kind on PATH")
    if not docker_answers():
        raise CannotRunHereError("the provider 'kind' needs a running Docker daemon")
    return kind


def _delete_kind(cluster: Instance, kind: str) -> None:
    _checked([kind, "delete", "cluster", "--name", cluster.kind_name])


def current_up(cluster: Instance, progress: Progress, confirm: Callable[[str], bool]) -> None:
    """Take the current context, after showing it; raises `ClusterError` on a no."""
    kubectl = locate(KUBECTL, progress)
    view = _checked([str(kubectl), "config", "view", "--minify", "--flatten", "--output=json"])
    document = json.loads(view)
    context = document.get("current-context") or ""
    if not context:
        raise CannotRunHereError("the provider 'current' needs a kubeconfig with a current context")
    server = document["clusters"][0]["cluster"]["server"]
    if not confirm(f"Use the context {context!r} ({server})?"):
        raise ClusterError("not confirmed; nothing was changed")
    _prepare(cluster, "current", progress)
    cluster.kubeconfig.touch(mode=0o600)
    cluster.kubeconfig.write_text(view)
    if not _ready(cluster):
        raise ClusterError(f"the API server {server} of context {context!r} does not answer")
    progress.line(f"using context {context!r}")


def current_down(cluster: Instance, progress: Progress) -> None:
    """Forget the context; the cluster itself is not ours to end."""
    _end_forwarding(cluster)
    shutil.rmtree(cluster.state, ignore_errors=True)
    progress.line(f"forgot the context; what was installed into cluster {cluster.name!r} stays")


def _prepare(cluster: Instance, provider: str, progress: Progress) -> None:
    for folder in (cluster.log, cluster.run, cluster.commands, cluster.config):
        folder.mkdir(parents=True, exist_ok=True)
    (cluster.state / "provider").write_text(provider)
    link = cluster.commands / "kubectl"
    link.unlink(missing_ok=True)
    link.symlink_to(locate(KUBECTL, progress))


def _ready(cluster: Instance) -> bool:
    kubectl = [str(cluster.commands / "kubectl"), "--kubeconfig", str(cluster.kubeconfig)]
    probe = [*kubectl, "get", "--raw", "/readyz", "--request-timeout=5s"]
    return subprocess.run(probe, capture_output=True, check=False, timeout=30).returncode == 0


def ready(cluster: Instance) -> bool:
    """Whether the API server of the instance answers."""
    return cluster.kubeconfig.exists() and _ready(cluster)


def service(cluster: Instance, text: str) -> int:
    """Publish a Service given as NAMESPACE/SERVICE:PORT; return its port, each time the same."""
    publish.split(text)
    saved = publish.ports(cluster)
    name = publish.process_name(text)
    if text in saved and running(cluster, name):
        return saved[text]
    port = saved.get(text) or publish.free_port()
    plan = {
        "kubectl": str(cluster.commands / "kubectl"),
        "kubeconfig": str(cluster.kubeconfig),
        "service": text,
        "port": port,
        "log": str(cluster.log / f"{name}.log"),
    }
    module = [sys.executable, "-m", "localkube.port_forward", json.dumps(plan)]
    carrier = processes.spawn(module, cluster.log / f"{name}.log", module_environment())
    processes.save(pid_file(cluster, name), carrier)
    publish.remember(cluster, text, port)
    publish.wait_listening(port, time.monotonic() + _READY_TIMEOUT_S)
    return port


def _end_forwarding(cluster: Instance) -> None:
    saved = [processes.load(path) for path in cluster.run.glob("forward-*.json")]
    processes.end([process for process in saved if process], grace_s=2)


def _checked(command: Sequence[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)
    if done.returncode != 0:
        raise ClusterError(f"{' '.join(command[:3])} failed: {done.stderr.strip()}")
    return done.stdout
