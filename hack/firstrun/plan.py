"""The plan that is shown before anything starts: machine, provider, stages, disk, memory."""

from __future__ import annotations

import os
import platform
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from localkube import build, cli, preflight
from localkube.errors import CannotRunHereError, ClusterError
from localkube.layout import instance
from localkube.servers import BINARIES

GIB = 1 << 30
#: Seconds on two cores, measured: the first time, and when everything is built.
COLD_S = {"packages": 20.0, "embedded": 20.0, "cluster": 400.0, "images": 450.0, "service": 30.0}
WARM_S = {"packages": 1.0, "embedded": 12.0, "cluster": 8.0, "images": 10.0, "service": 25.0}
DISK_COLD_BYTES = 10 * GIB
DISK_WARM_BYTES = 2 * GIB
MEMORY_BYTES = 3 * GIB


@dataclass(frozen=True, slots=True)
class Machine:
    """What the plan needs to know about this computer; sizes in bytes."""

    system: str
    cores: int
    memory_bytes: int
    free_disk_bytes: int


@dataclass(frozen=True, slots=True)
class Plan:
    """What will be done here. `obstacle` says why no cluster is possible, '' where one is."""

    name: str
    machine: Machine
    provider: str
    obstacle: str
    next_step: str
    built: bool
    seconds: Mapping[str, float]
    embedded_only: bool

    @property
    def with_cluster(self) -> bool:
        """Return whether the second stage runs."""
        return not self.embedded_only and not self.obstacle

    def expected_s(self, stage: str) -> float:
        """Return what a stage took the last time here, or takes elsewhere."""
        return self.seconds.get(stage) or (WARM_S if self.built else COLD_S)[stage]

    def text(self) -> str:
        """Return the plan as lines for people."""
        here = self.machine
        disk_bytes = DISK_WARM_BYTES if self.built else DISK_COLD_BYTES
        free_gib = here.free_disk_bytes / GIB
        lines = [
            f"machine   {here.system}, {here.cores} cores",
            f"          {here.memory_bytes / GIB:.0f} GiB memory, {free_gib:.0f} GiB free disk",
            f"provider  {self._provider()}",
            f"needs     about {MEMORY_BYTES / GIB:.0f} GiB memory, {disk_bytes / GIB:.0f} GiB disk"
            if self.with_cluster
            else "needs     about 1 GiB memory, 2 GiB disk",
            f"stage 1   the application alone, embedded: about {self._embedded_s():.0f} s",
        ]
        if self.with_cluster:
            lines.append(
                f"stage 2   the same on Kubernetes: about {self._cluster_s():.0f} s in all"
            )
        return "\n".join(lines)

    def _provider(self) -> str:
        if self.embedded_only:
            return "none (--embedded)"
        if self.obstacle:
            return f"none: {self.obstacle}"
        return f"{self.provider}, {'started' if self.built else 'built while stage 1 is shown'}"

    def _embedded_s(self) -> float:
        return self.expected_s("packages") + self.expected_s("embedded")

    def _cluster_s(self) -> float:
        prepared_s = max(self.expected_s("cluster"), self.expected_s("images"), self._embedded_s())
        return prepared_s + self.expected_s("service")


def machine(environment: Mapping[str, str]) -> Machine:
    """Look at this computer."""
    home = Path(environment.get("HOME", "/"))
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    system = f"{platform.system()} {platform.machine()}, Python {platform.python_version()}"
    cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    return Machine(system, cores, pages, shutil.disk_usage(home).free)


def make(
    name: str, asked: str | None, seconds: Mapping[str, float], *, embedded_only: bool
) -> Plan:
    """Return the plan for this machine. Raises ClusterError where the arguments contradict."""
    provider, obstacle, next_step = "", "", ""
    if not embedded_only:
        try:
            cluster = instance(name, os.environ)
            provider = cli.provider_of(cluster, asked)
            if provider == "node":
                preflight.check_node(cluster)
        except CannotRunHereError as error:
            obstacle = str(error)
            next_step = _next_step()
    built = bool(build.built(BINARIES))
    return Plan(
        name, machine(os.environ), provider, obstacle, next_step, built, seconds, embedded_only
    )


def _next_step() -> str:
    if sys.platform == "linux" and os.geteuid() != 0:
        return "sudo hack/quickstart"
    return "start Docker and install kind, or use a cluster: hack/quickstart --provider current"


__all__ = ["ClusterError", "Machine", "Plan", "machine", "make"]
