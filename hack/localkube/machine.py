"""The few traces outside the state folder, shared by all instances and removed by the last.

Bind mounts need something to lie on, so `up` makes the missing folders of
`redirected_folders`, notes which ones it made, and the last instance's `down`
removes exactly those. One lock an instance keeps two commands from meeting.
"""

import fcntl
import json
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from localkube.errors import ClusterError
from localkube.layout import RUN_FOLDER

_MADE = "made.json"
_REGISTRY_LOCK = "registry"


@contextmanager
def locked(name: str) -> Iterator[None]:
    """Hold the instance's lock; raises `ClusterError` when another command holds it."""
    with _lock(f"{name}.lock", wait=False):
        yield
    _remove_if_empty()


@contextmanager
def _lock(file: str, *, wait: bool) -> Iterator[None]:
    path = RUN_FOLDER / file
    while True:
        RUN_FOLDER.mkdir(parents=True, exist_ok=True)
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except FileNotFoundError:
            continue
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            os.close(descriptor)
            message = "another hack/cluster command works on this instance; wait for it to end"
            raise ClusterError(message) from None
        # The holder before us may have removed the file: then this lock protects nothing.
        if path.exists() and os.fstat(descriptor).st_ino == path.stat().st_ino:
            break
        os.close(descriptor)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        os.close(descriptor)


def enter(name: str, folders: Iterable[Path]) -> None:
    """Register the instance and make the missing folders."""
    with _lock(_REGISTRY_LOCK, wait=True):
        (RUN_FOLDER / f"{name}.instance").touch()
        made = _made()
        for folder in folders:
            for part in [*reversed(folder.parents), folder]:
                if not part.exists():
                    part.mkdir()
                    made.append(str(part))
        (RUN_FOLDER / _MADE).write_text(json.dumps(made))


def leave(name: str) -> None:
    """Forget the instance; the last one removes the folders that were made for them all."""
    with _lock(_REGISTRY_LOCK, wait=True):
        (RUN_FOLDER / f"{name}.instance").unlink(missing_ok=True)
        # Removing a folder takes away what other namespaces have mounted on it.
        if any(RUN_FOLDER.glob("*.instance")):
            return
        for folder in reversed(_made()):
            with suppress(OSError):
                Path(folder).rmdir()
        (RUN_FOLDER / _MADE).unlink(missing_ok=True)


def _made() -> list[str]:
    try:
        made: list[str] = json.loads((RUN_FOLDER / _MADE).read_text())
    except (OSError, ValueError):
        return []
    return made


def _remove_if_empty() -> None:
    with suppress(OSError):
        RUN_FOLDER.rmdir()
