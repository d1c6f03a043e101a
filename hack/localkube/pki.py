"""Certificates and the kubeconfigs that carry them, made with openssl."""

import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from localkube.configs import kubeconfig
from localkube.errors import ClusterError
from localkube.layout import FIRST_SERVICE_IP, NODE_IP, NODE_NAME

_CURVE = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")


@dataclass(frozen=True, slots=True)
class Identity:
    """One certificate: file name, subject as openssl writes it, alternative names."""

    file: str
    subject: str
    names: str = ""


API_NAMES = ",".join(
    (
        "DNS:kubernetes",
        "DNS:kubernetes.default",
        "DNS:kubernetes.default.svc",
        "DNS:kubernetes.default.svc.cluster.local",
        "DNS:localhost",
        f"IP:{FIRST_SERVICE_IP}",
        f"IP:{NODE_IP}",
        "IP:127.0.0.1",
    )
)
CONTROL_PLANE = (
    Identity("apiserver", "/CN=kube-apiserver", API_NAMES),
    Identity("admin", "/O=system:masters/CN=admin"),
    Identity("controller-manager", "/CN=system:kube-controller-manager"),
)
NODE = (
    *CONTROL_PLANE,
    Identity("scheduler", "/CN=system:kube-scheduler"),
    Identity("proxy", "/CN=system:kube-proxy"),
    Identity("coredns", "/O=system:masters/CN=coredns"),
    Identity("kubelet-client", "/O=system:masters/CN=kube-apiserver-kubelet-client"),
    Identity(
        "node", f"/O=system:nodes/CN=system:node:{NODE_NAME}", f"DNS:{NODE_NAME},IP:{NODE_IP}"
    ),
)


def create(folder: Path, identities: Sequence[Identity]) -> None:
    """Make the authority, the service account key and one certificate an identity.

    Files ``ca.crt``, ``ca.key``, ``sa.key``, and ``<file>.crt``, ``<file>.key``.
    Raises `ClusterError` with openssl's words when it fails.
    """
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o700)
    ca = (f"{folder}/ca.crt", f"{folder}/ca.key")
    subject = ("-subj", "/CN=local-ca", "-days", "3650")
    _openssl("req", "-x509", *_CURVE, *subject, "-out", ca[0], "-keyout", ca[1])
    _openssl("genpkey", "-algorithm", "RSA", "-out", f"{folder}/sa.key")
    for number, identity in enumerate(identities, start=2):
        _issue(folder, identity, number)


def _issue(folder: Path, identity: Identity, serial: int) -> None:
    base = folder / identity.file
    request = ("-subj", identity.subject, "-keyout", f"{base}.key", "-out", f"{base}.csr")
    _openssl("req", "-new", *_CURVE, *request)
    usage = "extendedKeyUsage=serverAuth,clientAuth\n"
    names = f"subjectAltName={identity.names}\n" if identity.names else ""
    with tempfile.NamedTemporaryFile("w", suffix=".cnf") as extensions:
        extensions.write(usage + names)
        extensions.flush()
        authority = ("-CA", f"{folder}/ca.crt", "-CAkey", f"{folder}/ca.key")
        validity = ("-set_serial", str(serial), "-days", "3650", "-extfile", extensions.name)
        signing = ("-in", f"{base}.csr", "-out", f"{base}.crt", *authority, *validity)
        _openssl("x509", "-req", *signing)
    Path(f"{base}.csr").unlink()


def _openssl(*arguments: str) -> None:
    done = subprocess.run(
        ["openssl", *arguments], capture_output=True, text=True, check=False, timeout=60
    )
    if done.returncode != 0:
        message = f"openssl {arguments[0]} failed: {done.stderr.strip()}"
        raise ClusterError(message)


def write_kubeconfig(folder: Path, user: str, server: str, target: Path | None = None) -> Path:
    """Write the kubeconfig of a user (by default ``<user>.kubeconfig``), readable by root only."""
    path = target or folder / f"{user}.kubeconfig"
    parts = [(folder / name).read_bytes() for name in ("ca.crt", f"{user}.crt", f"{user}.key")]
    path.touch(mode=0o600)
    path.write_text(kubeconfig(server, *parts))
    return path
