"""Runs programs inside an unpacked image the way a pod would: its user, a read-only root."""

from __future__ import annotations

import json
import subprocess
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from images.archive import read_layers

# Everything is mounted in a mount namespace of its own and goes with the process.
_ENTER = """
root=$1 user=$2 mounts=$3; shift 3
mount --bind "$root" "$root"
mount -o remount,ro,bind "$root"
mount -t tmpfs -o mode=1777 none "$root/tmp"
mount --rbind /dev "$root/dev"
mount --rbind /proc "$root/proc"
for mount in $mounts; do mount --bind "${mount%%:*}" "$root${mount#*:}"; done
exec chroot --userspec="$user" "$root" "$@"
"""


@dataclass(frozen=True, slots=True)
class Sandbox:
    """One image on disk; `user` is `uid:gid`, `command` its entry point and arguments."""

    root: Path
    user: str
    environment: Mapping[str, str]
    command: tuple[str, ...]
    stop_signal: str

    def arguments(
        self,
        command: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
        mounts: Mapping[Path, str] | None = None,
    ) -> list[str]:
        """Return the command line that runs a command inside, the image's own by default.

        `mounts` maps folders of the machine to folders that the image has.
        """
        bound = " ".join(f"{folder}:{place}" for folder, place in (mounts or {}).items())
        merged = {**self.environment, **(environment or {})}
        return [
            *("unshare", "--mount", "--propagation=private", "sh", "-euc", _ENTER, "sh"),
            *(str(self.root), self.user, bound, "/usr/bin/env", "-i"),
            *(f"{key}={value}" for key, value in merged.items()),
            *(command or self.command),
        ]

    def run(
        self, *command: str, environment: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run a command to its end, output captured."""
        return subprocess.run(
            self.arguments(command, environment),
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )


def unpack(archive: Path, target: Path) -> Sandbox:
    """Unpack a docker-archive with one image below the target folder."""
    root = target / "root"
    layers = target / "layers"
    root.mkdir(parents=True)
    layers.mkdir()
    for layer in read_layers(archive, layers):
        subprocess.run(["tar", "-xf", layer.path, "-C", root], check=True)
        layer.path.unlink()
    config = _config(archive)
    environment = dict(entry.split("=", 1) for entry in config["Env"])
    command = (*(config.get("Entrypoint") or ()), *(config.get("Cmd") or ()))
    stop_signal = config.get("StopSignal", "SIGTERM")
    return Sandbox(root, config["User"], environment, command, stop_signal)


def _config(archive: Path) -> dict[str, Any]:
    with tarfile.open(archive) as tar:
        manifest = tar.extractfile("manifest.json")
        assert manifest is not None
        entry = tar.extractfile(json.load(manifest)[0]["Config"])
        assert entry is not None
        config: dict[str, Any] = json.load(entry)["config"]
    return config
