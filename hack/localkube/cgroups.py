"""The cgroup that holds every process of an instance, in all hierarchies.

It is the list by which an instance is ended: a process cannot leave its cgroup
by forking or by losing its parent, so nothing of ours escapes, and nothing that
we did not start is in there. On cgroup v1 there is one hierarchy a controller,
on v2 one in all, on hybrid machines both.
"""

import os
import time
from contextlib import suppress
from pathlib import Path

from localkube.errors import ClusterError
from localkube.processes import Process, end, find

_SERVERS = "servers"
_KUBELET_CONTROLLERS = {"cpu", "cpuset", "memory", "hugetlb", "pids"}


def hierarchies(mounts: str) -> list[Path]:
    """Return the mount points of all cgroup hierarchies in the text of /proc/mounts."""
    rows = [line.split() for line in mounts.splitlines()]
    return [Path(row[1]) for row in rows if row[2] in {"cgroup", "cgroup2"}]


def _mounted() -> list[Path]:
    return hierarchies(Path("/proc/mounts").read_text())


def create(name: str) -> list[Path]:
    """Make the cgroup in every hierarchy; return the `cgroup.procs` files of the servers.

    Servers get a leaf of their own: on cgroup v2 a cgroup with processes cannot
    hand controllers to its children, and the kubelet's pods are to be children.
    """
    leaves = []
    for mount in _mounted():
        leaf = mount / name / _SERVERS
        try:
            leaf.mkdir(parents=True, exist_ok=True)
            _hand_down_controllers(mount, mount / name)
            _inherit_cpuset(mount / name)
            _inherit_cpuset(leaf)
        except OSError as error:
            message = f"cannot make the cgroup {leaf}: {error}"
            raise ClusterError(message) from error
        leaves.append(leaf / "cgroup.procs")
    return leaves


def _inherit_cpuset(group: Path) -> None:
    # A new cpuset of cgroup v1 is empty, and nothing can run in an empty one.
    for name in ("cpuset.cpus", "cpuset.mems"):
        child, parent = group / name, group.parent / name
        if not (child.exists() and parent.exists()) or child.read_text().strip():
            continue
        if inherited := parent.read_text().strip():
            child.write_text(inherited)


def _hand_down_controllers(root: Path, group: Path) -> None:
    # The kubelet refuses a cgroup v2 without the controllers it uses; runc enables the
    # same ones from the root down for every container anyway.
    for parent in (root, group):
        try:
            available = set((parent / "cgroup.controllers").read_text().split())
        except OSError:
            return
        for controller in sorted(available & _KUBELET_CONTROLLERS):
            with suppress(OSError):
                (parent / "cgroup.subtree_control").write_text(f"+{controller}")


def _groups(name: str) -> list[Path]:
    """Return every cgroup of that name and below, children before their parents."""
    found: list[Path] = []
    for mount in _mounted():
        root = mount / name
        if root.is_dir():
            # os.walk passes over groups that end while we look; Path.rglob would raise.
            found += [Path(group) for group, _, _ in os.walk(root, topdown=False)]
    return found


def members(name: str) -> list[Process]:
    """Return the processes of the cgroup, those of its pods included."""
    pids: set[int] = set()
    for group in _groups(name):
        with suppress(OSError):
            pids |= {int(line) for line in (group / "cgroup.procs").read_text().split()}
    # 0 stands for a process outside of our pid namespace.
    return [process for pid in sorted(pids - {0}) if (process := find(pid))]


def exists(name: str) -> bool:
    """Whether any hierarchy has the cgroup."""
    return any((mount / name).is_dir() for mount in _mounted())


def destroy(name: str, timeout_s: float = 20.0) -> None:
    """End every process of the cgroup and remove it; raises `ClusterError` when it stays."""
    deadline_s = time.monotonic() + timeout_s
    while True:
        _thaw(name)
        # Killed at once: a server that shuts down in order would start others meanwhile.
        end(members(name), grace_s=0)
        for group in _groups(name):
            with suppress(OSError):
                group.rmdir()
        if not exists(name):
            return
        if time.monotonic() > deadline_s:
            rest = [process.pid for process in members(name)]
            message = f"the cgroup {name} cannot be removed; processes left: {rest}"
            raise ClusterError(message)
        time.sleep(0.05)


def _thaw(name: str) -> None:
    # A frozen process does not take signals, not even SIGKILL, on cgroup v1.
    for group in _groups(name):
        for file, value in (("freezer.state", "THAWED"), ("cgroup.freeze", "0")):
            with suppress(OSError):
                if (group / file).exists():
                    (group / file).write_text(value)
