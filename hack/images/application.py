"""The product's own images, `operator` and `runtime`, from the two Dockerfiles.

Docker builds them where a daemon answers, on `python:3.x-slim`; otherwise buildah does, on the
local base image. Both read the same build context, which holds everything that is installed.
"""

from __future__ import annotations

import shutil
import subprocess
import tomllib
from dataclasses import dataclass
from pathlib import Path

from images import base, cache, wheelhouse
from images.errors import ImageError
from images.process import Say, need_debian_packages, run

DOCKER_BASE = "python:3.13-slim"
DOCKER_PYTHON = "3.13"
NAMES = ("operator", "runtime")
_STORAGE_LIMIT_BYTES = 6 << 30
_DOCKER_ANSWER_S = 5.0
_SOURCES = ("core", "operator", "runtime", "pyproject.toml", "uv.lock", "README.md", "LICENSE")


@dataclass(frozen=True, slots=True)
class Target:
    """What the images are built on and with."""

    builder: str
    base_image: str
    python_version: str


def docker_answers() -> bool:
    """Whether a Docker daemon can build images here."""
    if not shutil.which("docker"):
        return False
    try:
        asked = subprocess.run(
            ["docker", "version", "--format", "{{.Server.Version}}"],
            capture_output=True,
            check=False,
            timeout=_DOCKER_ANSWER_S,
        )
    except subprocess.TimeoutExpired:
        return False
    return asked.returncode == 0


def target(*, docker: bool) -> Target:
    """Return the base image and Python of a build with Docker, or without."""
    if docker:
        return Target("docker", DOCKER_BASE, DOCKER_PYTHON)
    return Target("buildah", f"{base.REPOSITORY_NAME}:{base.tag()}", base.PYTHON_VERSION)


def version() -> str:
    """Return the product's version from pyproject.toml."""
    project = tomllib.loads((cache.REPOSITORY / "pyproject.toml").read_text())["project"]
    return str(project["version"])


def tag(name: str, on: Target) -> str:
    """Return the content hash of everything that enters the image."""
    recipe = Path(__file__).parent
    files = [
        *(cache.REPOSITORY / source for source in _SOURCES),
        cache.REPOSITORY / f"Dockerfile.{name}",
        Path(__file__),
        recipe / "wheelhouse.py",
    ]
    return cache.tag_of([name, on.builder, on.base_image, on.python_version], files)


def build(name: str, image: str, on: Target, target_tar: Path, say: Say) -> None:
    """Build one image and write it as a docker-archive tar; raises ImageError."""
    with cache.staging(name) as scratch:
        context = scratch / "context"
        _fill_context(name, on, context, say)
        draft = scratch / "image.tar"
        if on.builder == "docker":
            _build_with_docker(name, image, on, context, draft, say)
        else:
            _build_with_buildah(name, image, on, context, draft, say)
        draft.replace(target_tar)


def _fill_context(name: str, on: Target, context: Path, say: Say) -> None:
    _put_pip(on, context / "tools", say)
    requirements = wheelhouse.requirements_of(name, on.python_version, say)
    (context / "requirements.txt").write_text(requirements)
    shutil.copytree(_wheels(name, requirements, on, say), context / "wheelhouse")
    run(
        f"{name}: building the wheel",
        [wheelhouse.uv(), "build", "--quiet", "--wheel", "--out-dir", context / "dist", "."],
        say,
        cwd=cache.REPOSITORY,
    )
    (context / "dist" / ".gitignore").unlink(missing_ok=True)
    shutil.copy(cache.REPOSITORY / f"Dockerfile.{name}", context / "Dockerfile")


def _put_pip(on: Target, folder: Path, say: Say) -> None:
    """Put the wheel of pip under a name without a version: zip archives are run by plain name."""
    wheelhouse.download_pip(on.python_version, folder, say)
    (wheel,) = folder.glob("*.whl")
    wheel.rename(folder / "pip.whl")
    (folder.parent / f"{folder.name}.requirements.txt").unlink()


def _wheels(name: str, requirements: str, on: Target, say: Say) -> Path:
    """Return the folder of the downloaded wheels, kept while the requirements are unchanged."""
    tag = cache.tag_of([requirements, on.python_version])
    folder = cache.folder() / f"wheels-{name}-{tag}"
    if not folder.exists():
        with cache.staging(f"wheels-{name}") as scratch:
            lines = requirements.splitlines()
            wheelhouse.download(lines, on.python_version, scratch / "wheels", name, say)
            cache.publish(scratch / "wheels", f"wheels-{name}", tag, "")
    return folder


def _build_with_docker(
    name: str, image: str, on: Target, context: Path, target_tar: Path, say: Say
) -> None:
    arguments = [
        "--build-arg",
        f"BASE_IMAGE={on.base_image}",
        "--build-arg",
        f"VERSION={version()}",
    ]
    run(f"{name}: docker build", ["docker", "build", *arguments, "-t", image, context], say)
    run(f"{name}: docker save", ["docker", "save", "-o", target_tar, image], say)


def _build_with_buildah(
    name: str, image: str, on: Target, context: Path, target_tar: Path, say: Say
) -> None:
    need_debian_packages({"buildah": "buildah"}, say)
    built = base.build(say)
    with cache.locked("buildah"):
        buildah = _buildah()
        if not _holds(buildah, built.name):
            run(
                f"{name}: loading the base",
                [*buildah, "pull", "-q", f"docker-archive:{built.archive}"],
                say,
            )
        arguments = [f"--build-arg=BASE_IMAGE={built.name}", f"--build-arg=VERSION={version()}"]
        command: list[str | Path] = [
            *buildah,
            "bud",
            "--isolation=chroot",
            "--layers",
            "--pull-never",
            "--timestamp=0",
            *arguments,
            f"--tag={image}",
            context,
        ]
        run(f"{name}: installing and compiling", command, say)
        run(
            f"{name}: writing the archive",
            [*buildah, "push", "-q", image, f"docker-archive:{target_tar}:{image}"],
            say,
        )


def push_commands(image: str, tar: str, target: str, *, docker: bool) -> list[list[str]]:
    """Return the commands that push a built image to its name in a registry."""
    if docker:
        return [
            ["docker", "load", "--quiet", f"--input={tar}"],
            ["docker", "tag", image, target],
            ["docker", "push", "--quiet", target],
        ]
    buildah = _buildah()
    return [
        [*buildah, "pull", "--quiet", f"docker-archive:{tar}"],
        [*buildah, "push", "--quiet", image, f"docker://{target}"],
    ]


def _buildah() -> list[str]:
    """Return buildah on storage of its own, emptied when it has grown past its limit."""
    storage = cache.folder() / "buildah"
    if storage.exists() and _size_bytes(storage) > _STORAGE_LIMIT_BYTES:
        subprocess.run(
            ["buildah", *_storage_options("overlay"), "rmi", "--all", "--force"],
            capture_output=True,
            check=False,
        )
    for driver in ("overlay", "vfs"):
        command = ["buildah", *_storage_options(driver)]
        probe = subprocess.run([*command, "info"], capture_output=True, check=False)
        if probe.returncode == 0:
            return command
    raise ImageError("buildah cannot store images here: " + probe.stderr.decode().strip())


def _storage_options(driver: str) -> list[str]:
    storage = cache.folder() / "buildah"
    return [
        f"--root={storage / driver}",
        f"--runroot={storage / f'{driver}-run'}",
        f"--storage-driver={driver}",
    ]


def _holds(buildah: list[str], image: str) -> bool:
    asked = subprocess.run(
        [*buildah, "inspect", "--type", "image", image], capture_output=True, check=False
    )
    return asked.returncode == 0


def _size_bytes(folder: Path) -> int:
    return sum(path.lstat().st_size for path in folder.rglob("*") if path.is_file())
