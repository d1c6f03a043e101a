"""The process that keeps an instance's namespaces open: ``python -m localkube.keeper``.

Started by `unshare` in a new mount and network namespace. Three duties:

- Bind mounts lead the servers' fixed paths into the state folder. They exist in
  this mount namespace only and end with it, so no unmounting can be forgotten.
- The kubelet insists on setting five machine-wide kernel values. A file with
  the value it wants lies over each of them here, so that it finds them set and
  the machine's own stay as they are.
- The host-path provisioner makes volume folders with mode 0750 for root, and
  Kubernetes does not apply fsGroup to such volumes; containers that do not run
  as root could never write. So new folders get the mode 0777 that kind's
  provisioner gives them, long before a pod can have been started on them.
"""

import json
import stat
import subprocess
import sys
import time
from pathlib import Path

# kubelet: pkg/kubelet/cm/container_manager_linux.go, setupKernelTunables.
KERNEL_VALUES = {
    "vm/overcommit_memory": "1",
    "kernel/panic": "10",
    "kernel/panic_on_oops": "1",
    "kernel/keys/root_maxkeys": "1000000",
    "kernel/keys/root_maxbytes": "25000000",
}
_POLL_S = 0.05
_NS_PER_S = 1_000_000_000
_WRITABLE = 0o777


def mount_plan(redirects: dict[str, str], values_folder: Path) -> list[tuple[str, str]]:
    """Return (source, mount point) pairs: the folders, then the kernel values."""
    values = [
        (str(values_folder / key.replace("/", ".")), f"/proc/sys/{key}") for key in KERNEL_VALUES
    ]
    return [*((source, target) for target, source in redirects.items()), *values]


def open_up(volumes: Path) -> None:
    """Let every user write into the volume folders."""
    for folder in volumes.iterdir():
        if folder.is_dir() and stat.S_IMODE(folder.stat().st_mode) != _WRITABLE:
            folder.chmod(_WRITABLE)


def main(arguments: list[str]) -> None:
    """Mount, say so by making the ready file, then watch the volumes for ever."""
    plan = json.loads(arguments[0])
    values_folder, volumes = Path(plan["values"]), Path(plan["volumes"])
    values_folder.mkdir(parents=True, exist_ok=True)
    for key, value in KERNEL_VALUES.items():
        (values_folder / key.replace("/", ".")).write_text(f"{value}\n")
    for source, target in mount_plan(plan["redirects"], values_folder):
        if Path(target).exists():
            subprocess.run(["mount", "--bind", source, target], check=True)
    Path(plan["ready"]).touch()
    changed_ns = -1
    while True:
        now_ns = volumes.stat().st_mtime_ns
        # File times are coarse: within a second of a change another may look the same.
        if now_ns != changed_ns or time.time_ns() - now_ns < _NS_PER_S:
            open_up(volumes)
            changed_ns = now_ns
        time.sleep(_POLL_S)


if __name__ == "__main__":
    main(sys.argv[1:])
