"""What cannot work on this machine, found before anything is downloaded or built."""

import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from localkube import build, cgroups, debian
from localkube.errors import CannotRunHereError, ClusterError
from localkube.layout import Instance, cache_folder
from localkube.servers import BINARIES

# kube-proxy's nftables mode: 5.13 is the least kernel that it accepts.
LEAST_KERNEL = (5, 13)
_GIB = 1 << 30
COLD_DISK_BYTES = 6 * _GIB
WARM_DISK_BYTES = 2 * _GIB
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


def architecture() -> str:
    """Return Go's name of this machine's architecture; raises `CannotRunHereError` for others."""
    machine = platform.machine()
    if machine not in _ARCHITECTURES:
        allowed = ", ".join(_ARCHITECTURES)
        raise CannotRunHereError(f"processor {machine}: the servers are built for {allowed} only")
    return _ARCHITECTURES[machine]


def kernel_version(release: str) -> tuple[int, int]:
    """Return major and minor of a kernel release such as ``6.1.0-18-amd64``."""
    match = re.match(r"(\d+)\.(\d+)", release)
    return (int(match[1]), int(match[2])) if match else (0, 0)


def obstacles(platform_name: str, user_id: int, kernel: str) -> list[str]:
    """Return the sentences that say why no node can run here; pure."""
    found = []
    if not platform_name.startswith("linux"):
        found.append(f"the provider 'node' needs Linux, this is {platform_name}")
        return found
    if user_id != 0:
        found.append("the provider 'node' needs root (namespaces and mounts); try 'sudo'")
    if kernel_version(kernel) < LEAST_KERNEL:
        least = ".".join(str(part) for part in LEAST_KERNEL)
        found.append(f"kernel {kernel}: at least {least} is needed for nftables Services")
    return found


def check_node(cluster: Instance) -> None:
    """Raise `CannotRunHereError` with every reason why the provider `node` cannot run here."""
    found = obstacles(sys.platform, os.geteuid(), platform.release())
    if not found:
        architecture()
        found = [*_namespaces(), *_cgroup(cluster), *_disk(cluster, os.environ), *_packages()]
    if found:
        raise CannotRunHereError("no local node is possible here: " + "; ".join(found))


def _namespaces() -> list[str]:
    if debian.command("unshare") is None:
        return []
    probe = ["unshare", "--mount", "--net", "--propagation", "slave", "true"]
    done = subprocess.run(probe, capture_output=True, text=True, check=False, timeout=5)
    if done.returncode == 0:
        return []
    return [f"no mount and network namespaces: {done.stderr.strip()}"]


def _cgroup(cluster: Instance) -> list[str]:
    probe = f"{cluster.cgroup}-probe"
    try:
        leaves = cgroups.create(probe)
        cgroups.destroy(probe, timeout_s=1)
    except (OSError, ClusterError) as error:
        return [str(error)]
    return [] if leaves else ["no cgroup file system is mounted"]


def _disk(cluster: Instance, environment: Mapping[str, str]) -> list[str]:
    cold = not build.built(BINARIES)
    needed = COLD_DISK_BYTES if cold else WARM_DISK_BYTES
    found = []
    for folder in {cluster.state, cache_folder(environment)}:
        free = shutil.disk_usage(_existing(folder)).free
        if free < needed:
            free_gib, needed_gib = free / _GIB, needed / _GIB
            found.append(f"{free_gib:.1f} GiB free at {folder}, {needed_gib:.0f} GiB are needed")
    return sorted(found)


def _packages() -> list[str]:
    packages = debian.missing_packages()
    if packages and shutil.which("apt-get") is None:
        return [f"missing, and no apt-get to install them: {' '.join(packages)}"]
    return []


def _existing(folder: Path) -> Path:
    while not folder.exists():
        folder = folder.parent
    return folder
