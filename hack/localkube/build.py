"""Builds the servers from their Go modules, once, and keeps them in the cache folder.

One module for all of them, so that they share the compiled packages: the API
server takes most of the time, the others a few seconds each behind it.
"""

import fcntl
import hashlib
import os
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from localkube.errors import ClusterError
from localkube.layout import KUBERNETES_VERSION, cache_folder
from localkube.progress import Estimate, Progress
from localkube.toolchain import GO, locate, present

MODULE = Path(__file__).resolve().parent / "tools"


@dataclass(frozen=True, slots=True)
class Program:
    """A Go package, the name the compiler gives its program, seconds it takes on two cores.

    The seconds hold when the programs before it in `PROGRAMS` were built first.
    """

    package: str
    built_as: str
    cold_s: float


_COMMAND = "k8s.io/kubernetes/cmd"
PROGRAMS = {
    "kube-apiserver": Program(f"{_COMMAND}/kube-apiserver", "kube-apiserver", 200),
    "kube-controller-manager": Program(
        f"{_COMMAND}/kube-controller-manager", "kube-controller-manager", 50
    ),
    "kube-scheduler": Program(f"{_COMMAND}/kube-scheduler", "kube-scheduler", 8),
    "kubelet": Program(f"{_COMMAND}/kubelet", "kubelet", 20),
    "kube-proxy": Program(f"{_COMMAND}/kube-proxy", "kube-proxy", 8),
    "etcd": Program("go.etcd.io/etcd/server/v3", "server", 10),
    "coredns": Program("./coredns", "coredns", 8),
    "versitygw": Program("github.com/versity/versitygw/cmd/versitygw", "versitygw", 12),
    "pause": Program("./pause", "pause", 2),
}
_DOWNLOAD_S = 25.0
_MEASURED_CORES = 2


def stamp(version: str) -> str:
    """Return the linker flags that make servers report their release.

    Without them they say ``v0.0.0-master+$Format:%H$`` and version checks of
    clients fail. -s and -w leave out symbols and debugging data.
    """
    major, minor, _ = version.removeprefix("v").split(".")
    variable = "k8s.io/component-base/version"
    values = {"gitVersion": version, "gitMajor": major, "gitMinor": minor}
    return " ".join(["-s -w", *(f"-X {variable}.{key}={value}" for key, value in values.items())])


FLAGS = ("-gcflags=all=-dwarf=false", "-ldflags", stamp(KUBERNETES_VERSION))
# The caller's own Go settings must not leak into what the cache key promises.
SETTINGS = {
    "GOTOOLCHAIN": "local",
    "CGO_ENABLED": "0",
    "GOFLAGS": "-mod=readonly -buildvcs=false",
    "GOWORK": "off",
    "GOOS": "linux",
}


def inputs_hash(sources: Mapping[str, bytes], go_version: str) -> str:
    """Return the cache key: sources by name, flags, settings, compiler version."""
    digest = hashlib.sha256()
    parts = [f"{name}={sources[name].hex()}" for name in sorted(sources)]
    settings = [f"{key}={value}" for key, value in sorted(SETTINGS.items())]
    for part in (*parts, *FLAGS, *settings, go_version):
        digest.update(f"{len(part)}:{part}".encode())
    return digest.hexdigest()[:16]


def unknown(names: Sequence[str]) -> list[str]:
    """Return the names that no program has."""
    return [name for name in names if name not in PROGRAMS]


def missing(names: Sequence[str], present: set[str]) -> list[str]:
    """Return what is still to be built, each once, in the order of `PROGRAMS`."""
    return [name for name in PROGRAMS if name in names and name not in present]


def expected_s(names: Sequence[str], cores: int) -> float:
    """Return the seconds a cold build of these programs takes, downloads included."""
    compile_s = sum(PROGRAMS[name].cold_s for name in names)
    # What the API server compiles, another Kubernetes server has to compile without it.
    if names and "kube-apiserver" not in names and any(n.startswith("kube") for n in names):
        compile_s += PROGRAMS["kube-apiserver"].cold_s / 2
    return _DOWNLOAD_S + compile_s * _MEASURED_CORES / max(cores, 1)


def summary(names: Sequence[str]) -> str:
    """Return the one line that says what is compiled."""
    first, *others = names
    return f"compiling {first} and {len(others)} more" if others else f"compiling {first}"


def go_command(go: str, names: Sequence[str], folder: Path) -> list[str]:
    """Return the one command that builds all these programs into the folder."""
    packages = [PROGRAMS[name].package for name in names]
    return [go, "build", *FLAGS, "-o", f"{folder}/", *packages]


def binaries(names: Sequence[str], progress: Progress | None = None) -> Path:
    """Return the folder that holds the named programs, built now where they are missing.

    Raises `ClusterError` for an unknown name or a failed build, `CannotRunHereError`
    when there is no Go and none can be installed.
    """
    progress = progress or Progress()
    if wrong := unknown(names):
        raise ClusterError(f"no such program: {', '.join(wrong)}; there are: {', '.join(PROGRAMS)}")
    go = locate(GO, progress)
    folder = _cache(go)
    folder.mkdir(parents=True, exist_ok=True)
    with _alone(folder):
        wanted = missing(names, {path.name for path in folder.iterdir()})
        if wanted:
            _build(go, wanted, folder, progress)
    return folder


def built(names: Sequence[str]) -> bool:
    """Whether all of them are in the cache already, for the Go that would be used."""
    go = present(GO)
    return go is not None and all((_cache(go) / name).exists() for name in names)


def _cache(go: Path) -> Path:
    key = inputs_hash(_sources(), _go_version(go))
    return cache_folder(os.environ) / "servers" / key


def _build(go: Path, names: Sequence[str], folder: Path, progress: Progress) -> None:
    draft = folder / f".new-{os.getpid()}"
    draft.mkdir(exist_ok=True)
    what = Estimate(summary(names), expected_s(names, os.cpu_count() or 1))
    environment = {**os.environ, **SETTINGS}
    progress.run(go_command(str(go), names, draft), environment, MODULE, what)
    for name in names:
        (draft / PROGRAMS[name].built_as).replace(folder / name)
    draft.rmdir()


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    # Two builds at once would do the same work twice on the same cores.
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _sources() -> dict[str, bytes]:
    kept = [path for path in MODULE.rglob("*") if path.suffix in {".go", ".mod", ".sum"}]
    return {str(path.relative_to(MODULE)): path.read_bytes() for path in kept}


def _go_version(go: Path) -> str:
    done = subprocess.run(
        [go, "env", "GOVERSION", "GOARCH"],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **SETTINGS},
        cwd=MODULE,
        timeout=60,
    )
    if done.returncode != 0:
        raise ClusterError(f"{go} does not run: {done.stderr.strip()}")
    return done.stdout
