"""Composes images from file trees: layers as deterministic tars, images as docker-archive tars.

Format: https://github.com/opencontainers/image-spec/blob/v1.1.0/config.md for the configuration,
and the `manifest.json` of `docker save` around it. Same inputs, same bytes: names are sorted,
times are zero, owners are numbers.
"""

from __future__ import annotations

import hashlib
import io
import json
import platform
import tarfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
_CREATED = "1970-01-01T00:00:00Z"
_CHUNK_BYTES = 1 << 20
_DIGEST_PREFIX = "sha256:"

Owner = Callable[[str], tuple[int, int]]


@dataclass(frozen=True, slots=True)
class Layer:
    """One uncompressed layer tar; `digest` is `sha256:` and the hash of its bytes."""

    path: Path
    digest: str


@dataclass(frozen=True, slots=True)
class ImageConfig:
    """What a container of the image runs as by default."""

    env: Mapping[str, str]
    entrypoint: Sequence[str] = ()
    command: Sequence[str] = ()
    user: str = "10001:10001"
    ports: Sequence[int] = ()
    stop_signal: str = "SIGTERM"
    labels: Mapping[str, str] = field(default_factory=dict)


def architecture() -> str:
    """Return this machine's architecture in the words of image configurations."""
    return _ARCHITECTURES.get(platform.machine(), platform.machine())


def root_owner(name: str) -> tuple[int, int]:
    """Own every entry by root."""
    return (0, 0)


def write_layer(tree: Path, target: Path, owner: Owner = root_owner) -> Layer:
    """Write the tree as a layer tar; `owner` gives user and group of a path inside the tree."""

    def normalise(entry: tarfile.TarInfo) -> tarfile.TarInfo:
        entry.uid, entry.gid = owner(entry.name)
        entry.uname = entry.gname = ""
        entry.mtime = 0
        return entry

    with tarfile.open(target, "w", format=tarfile.GNU_FORMAT) as tar:
        for path in sorted(tree.rglob("*")):
            name = str(path.relative_to(tree))
            tar.add(path, name, recursive=False, filter=normalise)
    return Layer(target, file_digest(target))


def file_digest(path: Path) -> str:
    """Return `sha256:` and the hexadecimal hash of the file's bytes."""
    with path.open("rb") as stream:
        return _DIGEST_PREFIX + hashlib.file_digest(stream, "sha256").hexdigest()


def write_image(target: Path, name: str, layers: Sequence[Layer], config: ImageConfig) -> None:
    """Write a docker-archive tar holding one image under the given name and tag."""
    configuration = json.dumps(_configuration(layers, config), sort_keys=True).encode()
    configuration_name = hashlib.sha256(configuration).hexdigest() + ".json"
    layer_names = [layer.digest.removeprefix(_DIGEST_PREFIX) + ".tar" for layer in layers]
    manifest = [{"Config": configuration_name, "RepoTags": [name], "Layers": layer_names}]
    with tarfile.open(target, "w", format=tarfile.GNU_FORMAT) as tar:
        _add_bytes(tar, "manifest.json", json.dumps(manifest).encode())
        _add_bytes(tar, configuration_name, configuration)
        for layer, layer_name in zip(layers, layer_names, strict=True):
            entry = tarfile.TarInfo(layer_name)
            entry.size = layer.path.stat().st_size
            with layer.path.open("rb") as stream:
                tar.addfile(entry, stream)


def read_layers(archive: Path, target: Path) -> list[Layer]:
    """Extract the layer tars of a one-image docker-archive, bottom first."""
    with tarfile.open(archive) as tar:
        stream = tar.extractfile("manifest.json")
        assert stream is not None
        names: list[str] = json.load(stream)[0]["Layers"]
        paths = []
        for name in names:
            source = tar.extractfile(name)
            assert source is not None
            path = target / name.replace("/", "-")
            with path.open("wb") as sink:
                while chunk := source.read(_CHUNK_BYTES):
                    sink.write(chunk)
            paths.append(path)
    return [Layer(path, file_digest(path)) for path in paths]


def _configuration(layers: Sequence[Layer], config: ImageConfig) -> dict[str, object]:
    return {
        "architecture": architecture(),
        "os": "linux",
        "created": _CREATED,
        "config": {
            "Env": [f"{key}={value}" for key, value in sorted(config.env.items())],
            "Entrypoint": list(config.entrypoint),
            "Cmd": list(config.command),
            "User": config.user,
            "ExposedPorts": {f"{port}/tcp": {} for port in config.ports},
            "StopSignal": config.stop_signal,
            "Labels": dict(config.labels),
            "WorkingDir": "/",
        },
        "rootfs": {"type": "layers", "diff_ids": [layer.digest for layer in layers]},
        "history": [{"created": _CREATED, "created_by": "hack/release"} for _ in layers],
    }


def _add_bytes(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size = len(content)
    tar.addfile(entry, io.BytesIO(content))
