"""Where built images are kept: one tar per content hash of the inputs, in the user's cache."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

TAG_LENGTH = 12
KEPT_VERSIONS = 2
_IGNORED_FOLDERS = frozenset({"__pycache__", "node_modules", ".mypy_cache", ".ruff_cache"})

REPOSITORY = Path(__file__).resolve().parents[2]


def folder() -> Path:
    """Return the folder of all cached builds, created where absent."""
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    path = home / "chatbot-operator" / "images"
    path.mkdir(parents=True, exist_ok=True)
    return path


def tag_of(words: Iterable[str], files: Iterable[Path] = ()) -> str:
    """Return the content hash of build inputs, twelve hexadecimal digits.

    `words` are strings such as versions, flags and tags of other inputs. `files` are files or
    folders inside the repository; a folder counts with every file below it. A file's path
    relative to the repository and its executable bit count with its bytes.
    """
    digest = hashlib.sha256()
    for word in words:
        digest.update(f"word {len(word)} {word}\n".encode())
    for path in sorted({file for entry in files for file in _files_below(entry)}):
        content = hashlib.sha256(path.read_bytes()).hexdigest()
        executable = int(os.access(path, os.X_OK))
        digest.update(f"file {path.relative_to(REPOSITORY)} {executable} {content}\n".encode())
    return digest.hexdigest()[:TAG_LENGTH]


def _files_below(entry: Path) -> list[Path]:
    if not entry.is_dir():
        return [entry]
    inside = (path for path in entry.rglob("*") if path.is_file())
    return [
        path
        for path in inside
        if not _IGNORED_FOLDERS & set(path.relative_to(entry).parts) and path.suffix != ".pyc"
    ]


@contextmanager
def locked(name: str) -> Iterator[None]:
    """Hold the lock of one cached thing; another process that builds the same one waits."""
    with (folder() / f".{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextmanager
def staging(name: str) -> Iterator[Path]:
    """Yield an empty scratch folder beside the cache, removed afterwards.

    Call it with the lock of `name` held: what an interrupted build of that name left is removed.
    """
    for stale in folder().glob(f".staging-{name}-*"):
        shutil.rmtree(stale, ignore_errors=True)
    path = Path(tempfile.mkdtemp(prefix=f".staging-{name}-", dir=folder()))
    path.chmod(0o755)
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def publish(built: Path, name: str, tag: str, suffix: str) -> Path:
    """Move a finished build to its place and drop the oldest earlier builds of that name."""
    target = folder() / f"{name}-{tag}{suffix}"
    built.replace(target)
    tag_pattern = "[0-9a-f]" * TAG_LENGTH
    versions = sorted(
        folder().glob(f"{name}-{tag_pattern}{suffix}"), key=lambda path: path.stat().st_mtime
    )
    for old in versions[:-KEPT_VERSIONS]:
        if old != target:
            _remove(old)
    return target


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()


def child_environment(names: Mapping[str, str]) -> dict[str, str]:
    """Return a minimal environment for a server started during a build."""
    return {"PATH": os.environ.get("PATH", "/usr/bin:/bin"), **names}
