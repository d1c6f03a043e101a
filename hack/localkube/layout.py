"""Where everything of one instance lives. Pure: paths and constants only."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from localkube.errors import ClusterError

KUBERNETES_VERSION = "v1.34.4"
NODE_NAME = "chatbot-node"
# A documentation address (RFC 5737): never routed, so it cannot collide with a real network.
NODE_IP = "192.0.2.10"
POD_RANGE = "10.244.0.0/16"
SERVICE_RANGE = "10.96.0.0/16"
FIRST_SERVICE_IP = "10.96.0.1"
API_PORT = 6443
PAUSE_IMAGE = "localhost/pause:3"
RUN_FOLDER = Path("/run/chatbot-operator")

_NAME = re.compile(r"[a-z0-9]([-a-z0-9]{0,30}[a-z0-9])?")


@dataclass(frozen=True, slots=True)
class Instance:
    """One local cluster: its name and the folder that holds all of its state."""

    name: str
    state: Path

    @property
    def kubeconfig(self) -> Path:
        """The administrator's kubeconfig for use from the machine."""
        return self.state / "kubeconfig"

    @property
    def pki(self) -> Path:
        """Keys, certificates and the kubeconfigs of the servers."""
        return self.state / "pki"

    @property
    def config(self) -> Path:
        """Configuration files of the servers."""
        return self.state / "config"

    @property
    def log(self) -> Path:
        """One file a server, and the audit log."""
        return self.state / "log"

    @property
    def run(self) -> Path:
        """One file a running process, with its pid and start time."""
        return self.state / "run"

    @property
    def commands(self) -> Path:
        """A folder for PATH that holds the kubectl to use."""
        return self.state / "bin"

    @property
    def volumes(self) -> Path:
        """The data of this instance's persistent volumes."""
        return self.state / "volumes"

    @property
    def audit_log(self) -> Path:
        """JSON lines, one a write request to the API server."""
        return self.log / "audit.log"

    @property
    def containerd_socket(self) -> Path:
        """The socket of this instance's container runtime."""
        return self.state / "containerd.sock"

    @property
    def cgroup(self) -> str:
        """The cgroup below every hierarchy's root that holds all processes."""
        return f"chatbot-operator-{self.name}"

    @property
    def kind_name(self) -> str:
        """The name that `kind` knows this instance by."""
        return f"chatbot-operator-{self.name}"


def instance(name: str, environment: Mapping[str, str]) -> Instance:
    """Return the instance of that name under the user's state folder.

    Raises `ClusterError` when the name could not name a cgroup or a container.
    Folder: XDG Base Directory Specification, ``$XDG_STATE_HOME``.
    """
    if not _NAME.fullmatch(name):
        message = (
            f"--name {name!r}: allowed are lower-case letters, digits and '-' inside, at most 32"
        )
        raise ClusterError(message)
    return Instance(name, _home(environment, "XDG_STATE_HOME", ".local/state") / name)


def search_path(environment: Mapping[str, str]) -> str:
    """Return PATH without the folders that `env` puts there.

    A kubectl found in one of them would be made a link to itself.
    """
    ours = _home(environment, "XDG_STATE_HOME", ".local/state")
    folders = environment.get("PATH", "").split(os.pathsep)
    return os.pathsep.join(folder for folder in folders if ours not in Path(folder).parents)


def cache_folder(environment: Mapping[str, str]) -> Path:
    """Return the folder of built servers and downloaded tools (``$XDG_CACHE_HOME``)."""
    return _home(environment, "XDG_CACHE_HOME", ".cache")


def _home(environment: Mapping[str, str], variable: str, fallback: str) -> Path:
    # The specification tells readers to ignore relative values.
    given = environment.get(variable, "")
    base = Path(given) if given.startswith("/") else Path(environment["HOME"]) / fallback
    return base / "chatbot-operator"


def redirected_folders(cluster: Instance) -> dict[Path, Path]:
    """Return fixed paths of the servers and the state folder each one leads to.

    These paths are compiled into kubelet, containerd, libcni and the host-path
    provisioner. In the instance's mount namespace each is a bind mount, so two
    instances never meet there and nothing is left when the namespace ends.
    """
    inside = cluster.state / "node"
    return {
        Path("/run/containerd"): inside / "run-containerd",
        Path("/var/lib/cni"): inside / "cni",
        Path("/var/lib/kubelet"): inside / "kubelet",
        Path("/var/log/pods"): inside / "pod-logs",
        Path("/var/log/containers"): inside / "container-logs",
        Path("/tmp/hostpath_pv"): cluster.volumes,  # noqa: S108 - the provisioner's fixed path
    }
