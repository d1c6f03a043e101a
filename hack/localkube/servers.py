"""Command lines of the servers. Pure.

Fixed ports: inside its own network namespace every instance has all of them.
Absolute paths only: entering a mount namespace changes the working directory.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from localkube.layout import API_PORT, NODE_IP, NODE_NAME, POD_RANGE, SERVICE_RANGE, Instance

# In the order of starting; ending goes the other way round.
NODE_SERVERS = (
    "etcd",
    "apiserver",
    "containerd",
    "controller-manager",
    "scheduler",
    "kubelet",
    "proxy",
    "coredns",
)
BINARIES = (
    "etcd",
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
    "kubelet",
    "kube-proxy",
    "coredns",
    "pause",
)


@dataclass(frozen=True, slots=True)
class ControlPlane:
    """Where one control plane keeps its files and which ports it takes."""

    state: Path
    binaries: Path
    address: str = NODE_IP
    etcd_port: int = 2379
    etcd_peer_port: int = 2380
    api_port: int = API_PORT
    controller_manager_port: int = 10257

    @property
    def pki(self) -> Path:
        """Keys and certificates."""
        return self.state / "pki"


def etcd(plane: ControlPlane) -> list[str]:
    """Return etcd's command line; no fsync, because the data is worth no more than its machine."""
    client = f"http://127.0.0.1:{plane.etcd_port}"
    peer = f"http://127.0.0.1:{plane.etcd_peer_port}"
    return [
        f"{plane.binaries}/etcd",
        f"--data-dir={plane.state}/etcd",
        "--unsafe-no-fsync",
        "--log-level=warn",
        f"--listen-client-urls={client}",
        f"--advertise-client-urls={client}",
        f"--listen-peer-urls={peer}",
        f"--initial-advertise-peer-urls={peer}",
        f"--initial-cluster=default={peer}",
    ]


def apiserver(plane: ControlPlane, audit_log: Path, extra: tuple[str, ...] = ()) -> list[str]:
    """Return the API server's command line, audit log included."""
    pki = plane.pki
    return [
        f"{plane.binaries}/kube-apiserver",
        f"--etcd-servers=http://127.0.0.1:{plane.etcd_port}",
        f"--service-cluster-ip-range={SERVICE_RANGE}",
        f"--advertise-address={plane.address}",
        f"--secure-port={plane.api_port}",
        f"--tls-cert-file={pki}/apiserver.crt",
        f"--tls-private-key-file={pki}/apiserver.key",
        f"--client-ca-file={pki}/ca.crt",
        f"--service-account-key-file={pki}/sa.key",
        f"--service-account-signing-key-file={pki}/sa.key",
        "--service-account-issuer=https://kubernetes.default.svc.cluster.local",
        "--authorization-mode=Node,RBAC",
        "--allow-privileged=true",
        f"--audit-policy-file={plane.state}/config/audit.json",
        f"--audit-log-path={audit_log}",
        "--audit-log-maxsize=200",
        "--audit-log-maxbackup=1",
        *extra,
    ]


def controller_manager(plane: ControlPlane, extra: tuple[str, ...] = ()) -> list[str]:
    """Return the controller manager's command line."""
    return [
        f"{plane.binaries}/kube-controller-manager",
        f"--kubeconfig={plane.pki}/controller-manager.kubeconfig",
        f"--root-ca-file={plane.pki}/ca.crt",
        f"--service-account-private-key-file={plane.pki}/sa.key",
        "--use-service-account-credentials",
        "--leader-elect=false",
        "--bind-address=127.0.0.1",
        f"--secure-port={plane.controller_manager_port}",
        # The default lies in /usr/libexec and would be made there.
        f"--flex-volume-plugin-dir={plane.state}/volume-plugins",
        *extra,
    ]


def node_commands(cluster: Instance, binaries: Path, containerd: str) -> Mapping[str, list[str]]:
    """Return the command line of every server of the provider `node`, in starting order."""
    plane = ControlPlane(cluster.state, binaries)
    pki = cluster.pki
    kubelet_client = (
        "--enable-admission-plugins=NodeRestriction",
        f"--kubelet-client-certificate={pki}/kubelet-client.crt",
        f"--kubelet-client-key={pki}/kubelet-client.key",
        f"--kubelet-certificate-authority={pki}/ca.crt",
        "--kubelet-preferred-address-types=InternalIP",
    )
    provisioner = ("--enable-hostpath-provisioner",)
    commands = {
        "etcd": etcd(plane),
        "apiserver": apiserver(plane, cluster.audit_log, kubelet_client),
        "containerd": [containerd, "--config", f"{cluster.config}/containerd.toml"],
        "controller-manager": controller_manager(plane, provisioner),
        "scheduler": [
            f"{binaries}/kube-scheduler",
            f"--kubeconfig={pki}/scheduler.kubeconfig",
            "--leader-elect=false",
        ],
        "kubelet": _kubelet(cluster, binaries),
        "proxy": _proxy(cluster, binaries),
        "coredns": [f"{binaries}/coredns", "-conf", f"{cluster.config}/Corefile"],
    }
    return {name: commands[name] for name in NODE_SERVERS}


def _kubelet(cluster: Instance, binaries: Path) -> list[str]:
    return [
        f"{binaries}/kubelet",
        f"--config={cluster.config}/kubelet.json",
        f"--kubeconfig={cluster.pki}/node.kubeconfig",
        f"--hostname-override={NODE_NAME}",
        f"--node-ip={NODE_IP}",
    ]


def _proxy(cluster: Instance, binaries: Path) -> list[str]:
    # Connection-tracking settings at 0 = leave alone: they belong to the machine.
    return [
        f"{binaries}/kube-proxy",
        f"--kubeconfig={cluster.pki}/proxy.kubeconfig",
        f"--hostname-override={NODE_NAME}",
        "--proxy-mode=nftables",
        f"--cluster-cidr={POD_RANGE}",
        "--conntrack-max-per-core=0",
        "--conntrack-tcp-timeout-established=0",
        "--conntrack-tcp-timeout-close-wait=0",
    ]
