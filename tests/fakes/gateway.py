"""A real S3 gateway for tests: versitygw over a folder."""

from __future__ import annotations

import contextlib
import ctypes
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from chatbot_core import names
from localkube import build

KEYS = {names.FILE_ACCESS_KEY_ID: "test-key", names.FILE_SECRET_ACCESS_KEY: "test-secret-1234"}


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@contextlib.contextmanager
def s3_gateway(folder: Path, *, versions: bool) -> Iterator[str]:
    """Yield the gateway's URL; with `versions` its buckets may keep versions."""
    program = build.binaries(["versitygw"]) / "versitygw"
    for name in ("data", "meta", "versions"):
        (folder / name).mkdir()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = subprocess.Popen(
        [
            program,
            *("--access", KEYS[names.FILE_ACCESS_KEY_ID]),
            *("--secret", KEYS[names.FILE_SECRET_ACCESS_KEY]),
            *("--port", f"127.0.0.1:{port}", "--quiet"),
            *("posix", "--sidecar", folder / "meta"),
            *(("--versioning-dir", folder / "versions") if versions else ()),
            folder / "data",
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        preexec_fn=_die_with_parent,  # noqa: PLW1509 - no threads hold locks here
    )
    try:
        ends_s = time.monotonic() + 10
        while not _listens(port):
            assert process.poll() is None, "the gateway ended at its start"
            assert time.monotonic() < ends_s
            time.sleep(0.05)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait(5)
