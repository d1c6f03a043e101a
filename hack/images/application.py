"""The product's own images, `operator` and `runtime`, from the two Dockerfiles.

Docker builds them where a daemon answers, on `python:3.x-slim`; otherwise buildah does, on the
local base image. Both read the same build context, which holds everything that is installed.
"""

from __future__ import annotations

import shutil
import subprocess
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from images import base, buildah, cache, wheelhouse
from images.process import Say, run

DOCKER_BASE = "python:3.13-slim"
DOCKER_PYTHON = "3.13"
NAMES = ("operator", "runtime")
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
        recipe / "buildah.py",
        recipe / "wheelhouse.py",
    ]
    return cache.tag_of([name, on.builder, on.base_image, on.python_version], files)


def build(name: str, image: str, on: Target, target_tar: Path, say: Say) -> None:
    """Build one image and write it as a docker-archive tar; raises ImageError."""
    with cache.staging(name) as scratch:
        context = scratch / "context"
        _fill_context(name, on, context, say)
        draft = scratch / "image.tar"
        arguments = {"BASE_IMAGE": on.base_image, "VERSION": version()}
        if on.builder == "docker":
            _build_with_docker(image, arguments, context, draft, say)
        else:
            buildah.build(context, image, base.build(say).archive, arguments, say)
            buildah.save(image, draft, say)
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
    image: str, arguments: Mapping[str, str], context: Path, target_tar: Path, say: Say
) -> None:
    words = [f"--build-arg={key}={value}" for key, value in arguments.items()]
    run(f"{image}: docker build", ["docker", "build", *words, "-t", image, context], say)
    run(f"{image}: docker save", ["docker", "save", "-o", target_tar, image], say)


def push(image: str, tar: Path, target: str, *, docker: bool, say: Say) -> None:
    """Push a built image to its name in a registry; raises ImageError."""
    if not docker:
        buildah.push(image, tar, target, say)
        return
    for command in (
        ["docker", "load", "--quiet", f"--input={tar}"],
        ["docker", "tag", image, target],
        ["docker", "push", "--quiet", target],
    ):
        run(f"{image}: docker {command[1]}", command, say)
