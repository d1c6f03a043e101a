"""Builds from Dockerfiles without a daemon, with storage of its own below the cache folder."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from images import cache
from images.errors import ImageError
from images.process import Say, need_debian_packages, run

# What the layers may hold before the storage is emptied; vfs keeps a full copy for every layer.
_LIMIT_BYTES = {"overlay": 6 << 30, "vfs": 1 << 30}
# Without it every use leaves a mount of the storage folder behind.
_DRIVER_OPTIONS = {"overlay": ["--storage-opt=overlay.skip_mount_home=true"], "vfs": []}


@contextmanager
def opened(say: Say) -> Iterator[list[str]]:
    """Yield the buildah command, its storage locked and free of what interrupted builds left.

    Raises ImageError where buildah is missing and cannot be installed, or cannot store images.
    """
    need_debian_packages({"buildah": "buildah"}, say)
    with cache.locked("buildah"):
        driver, command = _working_driver()
        _quietly([*command, "rm", "--all"])
        if _stored_bytes(driver) > _LIMIT_BYTES[driver]:
            say("emptying the storage of buildah")
            _quietly([*command, "rmi", "--all", "--force"])
        yield command


def build(
    context: Path, image: str, base_archive: Path, arguments: Mapping[str, str], say: Say
) -> None:
    """Build the Dockerfile of a folder; `arguments` name the base image as BASE_IMAGE.

    The base comes from its archive; nothing is pulled. Raises ImageError.
    """
    with opened(say) as buildah:
        if _quietly([*buildah, "inspect", "--type=image", arguments["BASE_IMAGE"]]) != 0:
            load = [*buildah, "pull", "--quiet", f"docker-archive:{base_archive}"]
            run("loading the base image", load, say)
        command: list[str | Path] = [
            *(*buildah, "bud", "--isolation=chroot", "--layers", "--pull-never", "--timestamp=0"),
            *(f"--build-arg={key}={value}" for key, value in arguments.items()),
            *(f"--tag={image}", context),
        ]
        run(f"{image}: installing and compiling", command, say)


def save(image: str, target: Path, say: Say) -> None:
    """Write a built image as a docker-archive tar; raises ImageError."""
    with opened(say) as buildah:
        command = [*buildah, "push", "--quiet", image, f"docker-archive:{target}:{image}"]
        run(f"{image}: writing the archive", command, say)


def push(image: str, archive: Path, target: str, say: Say) -> None:
    """Push an image from its archive to its name in a registry; raises ImageError."""
    with opened(say) as buildah:
        run(f"{image}: loading", [*buildah, "pull", "-q", f"docker-archive:{archive}"], say)
        run(
            f"{image}: pushing {target}", [*buildah, "push", "-q", image, f"docker://{target}"], say
        )


def _working_driver() -> tuple[str, list[str]]:
    reasons = []
    for driver in _LIMIT_BYTES:
        command = [
            "buildah",
            f"--root={_storage(driver)}",
            f"--runroot={_storage(driver)}-run",
            f"--storage-driver={driver}",
            *_DRIVER_OPTIONS[driver],
        ]
        probe = subprocess.run([*command, "info"], capture_output=True, text=True, check=False)
        if probe.returncode == 0:
            return driver, command
        reasons.append(probe.stderr.strip())
    raise ImageError("buildah cannot store images here: " + "; ".join(reasons))


def _storage(driver: str) -> Path:
    return cache.folder() / "buildah" / driver


def _stored_bytes(driver: str) -> int:
    """Return the bytes of all layers, from the index of containers/storage."""
    index = _storage(driver) / f"{driver}-layers" / "layers.json"
    if not index.exists():
        return 0
    return sum(layer.get("diff-size", 0) for layer in json.loads(index.read_text()))


def _quietly(command: list[str]) -> int:
    return subprocess.run(command, capture_output=True, check=False).returncode
