"""Downloads what `uv.lock` pins: the wheels of one extra, or one single wheel, hashes checked."""

from __future__ import annotations

import platform
import re
import tomllib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache as once
from pathlib import Path

from images import cache
from images.errors import ImageError
from images.process import Say, run
from localkube import toolchain
from localkube.progress import Progress

PIP_VERSION = "26.3"
PIP_HASH = "sha256:f3b60b20ffaadd4415ed7957212a38ac63fa4c5fa375bd0f4a797777940fad13"
_GLIBC_LEVELS = ("2_28", "2_27", "2_26", "2_24", "2_17", "2_12", "2_5")
_PINNED = re.compile(r"^([A-Za-z0-9._-]+)==([^ ;\\]+)")


@dataclass(frozen=True, slots=True)
class Pin:
    """One package as the lock file names it; hashes are `sha256:` and hexadecimal digits."""

    name: str
    version: str
    hashes: tuple[str, ...]

    def requirement(self) -> str:
        """Return the line that pip checks hashes with."""
        return " ".join([f"{self.name}=={self.version}", *(f"--hash={h}" for h in self.hashes)])


@once
def uv() -> str:
    """Return the uv command: the machine's own, or one installed into the user's cache.

    Raises `localkube.errors.CannotRunHereError` where neither is possible.
    """
    return str(toolchain.locate(toolchain.UV, Progress()))


@once
def _locked_packages() -> tuple[Pin, ...]:
    lock = tomllib.loads((cache.REPOSITORY / "uv.lock").read_text())
    return tuple(
        Pin(
            package["name"],
            package["version"],
            tuple(sorted(wheel["hash"] for wheel in package.get("wheels", []))),
        )
        for package in lock["package"]
    )


def locked(name: str, version: str | None = None) -> Pin:
    """Return what `uv.lock` pins for a package; raises ImageError where it is not locked.

    `version` is needed only where the lock file holds several versions of one package.
    """
    pins = [pin for pin in _locked_packages() if pin.name == name]
    found = [pin for pin in pins if version in {None, pin.version}]
    if len(found) != 1:
        raise ImageError(f"uv.lock holds {len(found)} versions of {name}, not one: run `uv lock`")
    return found[0]


def requirements_of(extra: str, python_version: str, say: Say) -> str:
    """Return the requirements of one extra, without the project, for one Python on Linux.

    uv evaluates the environment markers for the target Python; the lock file gives the hashes.
    """
    exported = run(
        f"{extra}: reading uv.lock",
        [
            uv(),
            "export",
            "--frozen",
            "--extra",
            extra,
            "--no-dev",
            "--no-emit-project",
            "--no-header",
            "--no-annotate",
            "--no-hashes",
            "--project",
            cache.REPOSITORY,
        ],
        say,
    )
    with cache.staging(f"markers-{extra}") as scratch:
        source = scratch / "requirements.in"
        source.write_text(exported)
        selected = run(
            f"{extra}: selecting the packages of Python {python_version}",
            [
                uv(),
                "pip",
                "compile",
                source,
                "--no-deps",
                "--no-header",
                "--no-annotate",
                "--quiet",
                "--python-version",
                python_version,
                "--python-platform",
                f"{platform.machine()}-manylinux_2_28",
            ],
            say,
        )
    pins = [locked(name, version) for name, version in versions_in(selected)]
    return "".join(f"{pin.requirement()}\n" for pin in pins)


def versions_in(requirements: str) -> list[tuple[str, str]]:
    """Return name and version of every `name==version` line, in their order."""
    matches = (_PINNED.match(line) for line in requirements.splitlines())
    return [(match[1], match[2]) for match in matches if match]


def download(lines: Iterable[str], python_version: str, target: Path, what: str, say: Say) -> None:
    """Download wheels for the target Python into a folder; pip checks every hash."""
    target.mkdir(parents=True, exist_ok=True)
    requirements = target.parent / f"{target.name}.requirements.txt"
    requirements.write_text("\n".join(lines) + "\n")
    machine = platform.machine()
    platforms = [f"--platform=manylinux_{level}_{machine}" for level in _GLIBC_LEVELS]
    legacy = [f"--platform=manylinux2014_{machine}", f"--platform=linux_{machine}"]
    command = [
        *_pip(),
        "download",
        "--quiet",
        "--disable-pip-version-check",
        "--no-deps",
        "--only-binary=:all:",
        "--require-hashes",
        f"--python-version={python_version}",
        *platforms,
        *legacy,
        f"--dest={target}",
        f"--requirement={requirements}",
    ]
    run(f"{what}: downloading wheels", command, say)


def download_pip(python_version: str, target: Path, say: Say) -> None:
    """Put the wheel of pip itself into a folder; images install with it and do not keep it."""
    pin = Pin("pip", PIP_VERSION, (PIP_HASH,))
    download([pin.requirement()], python_version, target, "pip", say)


def _pip() -> Sequence[str]:
    return [
        uv(),
        "run",
        "--quiet",
        "--no-project",
        "--with",
        f"pip=={PIP_VERSION}",
        "python",
        "-m",
        "pip",
    ]
