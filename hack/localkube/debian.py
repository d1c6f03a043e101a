"""Packages that the node needs, installed where they are missing, and named."""

import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from localkube.errors import CannotRunHereError
from localkube.progress import Estimate, Progress

PLUGIN_FOLDERS = (Path("/usr/lib/cni"), Path("/opt/cni/bin"), Path("/usr/libexec/cni"))
_PLUGINS = ("ptp", "host-local", "loopback")
# The package of each command, by Debian's names.
PACKAGES: Mapping[str, str] = {
    "containerd": "containerd",
    "ctr": "containerd",
    "runc": "runc",
    "nft": "nftables",
    "ip": "iproute2",
    "nsenter": "util-linux",
    "unshare": "util-linux",
    "setpriv": "util-linux",
    "mount": "mount",
    "openssl": "openssl",
}
_PLUGIN_PACKAGE = "containernetworking-plugins"
_REFUSE_STARTS = "#!/bin/sh\n# chatbot-operator: no service starts during this install\nexit 101\n"


def plugin_folder() -> Path | None:
    """Return the folder that holds the CNI plug-ins, or None."""
    for folder in PLUGIN_FOLDERS:
        if all((folder / name).exists() for name in _PLUGINS):
            return folder
    return None


def command(name: str) -> str | None:
    """Return the path of a command, also from the folders that only root's PATH has."""
    path = os.environ.get("PATH", "") + ":/usr/local/sbin:/usr/sbin:/sbin"
    return shutil.which(name, path=path)


def missing_packages() -> list[str]:
    """Return the packages whose commands are not on this machine, each once, sorted."""
    packages = {package for name, package in PACKAGES.items() if command(name) is None}
    if plugin_folder() is None:
        packages.add(_PLUGIN_PACKAGE)
    return sorted(packages)


def install(progress: Progress) -> None:
    """Install what is missing; the services it brings are neither started nor enabled.

    Raises `CannotRunHereError` where there is no apt, or when apt fails.
    """
    packages = missing_packages()
    if not packages:
        return
    names = " ".join(packages)
    if shutil.which("apt-get") is None:
        raise CannotRunHereError(f"missing on this machine: {names}; install them and try again")
    progress.line(f"installing Debian packages: {names}")
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    apt = ("apt-get", "-qq", "-o", "Dpkg::Use-Pty=0")
    with no_service_starts(Path("/usr/sbin/policy-rc.d")):
        lists, packages_step = Estimate("reading package lists", 10), Estimate("installing", 30)
        progress.run([*apt, "update"], environment, Path("/"), lists)
        command_line = [*apt, "install", "-y", "--no-install-recommends", *packages]
        progress.run(command_line, environment, Path("/"), packages_step)
    _keep_disabled(packages)
    if rest := missing_packages():
        raise CannotRunHereError(f"still missing after the install: {' '.join(rest)}")


@contextmanager
def no_service_starts(policy: Path) -> Iterator[None]:
    """Refuse service starts through the policy file; what was there comes back afterwards.

    Source: invoke-rc.d policy interface, exit status 101 "action forbidden". A file left
    by an interrupted install is recognised by its text and removed too.
    """
    previous = policy.read_bytes() if policy.exists() else None
    mode = policy.stat().st_mode if previous is not None else 0
    if previous == _REFUSE_STARTS.encode():
        previous = None
    policy.write_text(_REFUSE_STARTS)
    policy.chmod(0o755)
    try:
        yield
    finally:
        if previous is None:
            policy.unlink()
        else:
            policy.write_bytes(previous)
            policy.chmod(mode)


def _keep_disabled(packages: Sequence[str]) -> None:
    # Installing enables the unit, so that it would start at the next boot.
    if "containerd" in packages and shutil.which("systemctl"):
        with suppress(OSError, subprocess.TimeoutExpired):
            subprocess.run(
                ["systemctl", "disable", "containerd"], capture_output=True, check=False, timeout=30
            )
