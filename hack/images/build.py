"""Builds images by name; what is in the cache already costs a few milliseconds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol

from images import application, cache, database, language_model, s3_gateway
from images.errors import ImageError
from images.process import Say, say_to_stderr

_STAND_INS = {
    stand_in.name: stand_in
    for stand_in in (database.STAND_IN, s3_gateway.STAND_IN, language_model.STAND_IN)
}
NAMES = (*application.NAMES, *_STAND_INS)


@dataclass(frozen=True, slots=True)
class Built:
    """One image: its local name, the docker-archive tar that holds it, the tar's size."""

    image: str
    tar: str
    size_bytes: int


class _Recipe(Protocol):
    def tag(self) -> str: ...
    def build(self, image: str, target: Path, say: Say) -> None: ...


@dataclass(frozen=True, slots=True)
class _Application:
    name: str
    on: application.Target

    def tag(self) -> str:
        return application.tag(self.name, self.on)

    def build(self, image: str, target: Path, say: Say) -> None:
        application.build(self.name, image, self.on, target, say)


def default_names(*, docker: bool) -> tuple[str, ...]:
    """Return what is built where nothing is named: with Docker, public images need no stand-in."""
    return application.NAMES if docker else NAMES


def build(
    names: Sequence[str], *, docker: bool | None = None, say: Say = say_to_stderr
) -> dict[str, Built]:
    """Build the named images where their inputs changed, and return them all by name.

    `docker` says whether Docker builds `operator` and `runtime`; by default it does where a
    daemon answers. Raises ImageError, for an unknown name before anything is built.
    """
    for name in names:
        if name not in NAMES:
            raise ImageError(f"--only {name}: no such image; there are: {', '.join(NAMES)}")
    with_docker = application.docker_answers() if docker is None else docker
    return {name: _build_one(name, _recipe(name, docker=with_docker), say) for name in names}


def _recipe(name: str, *, docker: bool) -> _Recipe:
    if name in application.NAMES:
        return _Application(name, application.target(docker=docker))
    return _STAND_INS[name]


def _build_one(name: str, recipe: _Recipe, say: Say) -> Built:
    tag = recipe.tag()
    image = f"localhost/chatbot-{name}:{tag}"
    tar = cache.folder() / f"{name}-{tag}.tar"
    with cache.locked(name):
        if not tar.exists():
            draft = cache.folder() / f".{name}.tar"
            recipe.build(image, draft, say)
            cache.publish(draft, name, tag, ".tar")
    return Built(image, str(tar), tar.stat().st_size)


def registry_names(built: Mapping[str, Built], registry: str, version: str) -> dict[str, str]:
    """Return the names in a registry, `<registry>/chatbot-<name>:<version>`.

    Stand-ins have none: they are for one machine alone.
    """
    base = registry.rstrip("/")
    return {name: f"{base}/chatbot-{name}:{version}" for name in application.NAMES if name in built}


def push(built: Mapping[str, Built], targets: Mapping[str, str], *, docker: bool, say: Say) -> None:
    """Push images to their names in a registry; raises ImageError."""
    for name, target in targets.items():
        image = built[name]
        application.push(image.image, Path(image.tar), target, docker=docker, say=say)


def as_json(built: Mapping[str, Built], targets: Mapping[str, str]) -> dict[str, dict[str, object]]:
    """Return the map that `hack/release images` prints; `registry_image` where one was named."""
    return {
        name: asdict(image) | ({"registry_image": targets[name]} if name in targets else {})
        for name, image in built.items()
    }
