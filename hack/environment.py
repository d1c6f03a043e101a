"""The virtual environment that every script below `hack/` shares: `.venv`, made with uv.

Standard library alone, because this runs before anything is installed.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from localkube import toolchain
from localkube.errors import ClusterError
from localkube.layout import cache_folder
from localkube.progress import Estimate, Progress

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"

#: What tests and gates need; scripts that run the service alone need less and start sooner.
DEVELOPMENT = ("--group", "dev", "--group", "quickstart")
OPERATOR = ("--no-default-groups", "--extra", "operator")
DEMO = ("--no-default-groups", "--extra", "demo", "--group", "quickstart")


def ensure_venv(selection: Sequence[str] = DEVELOPMENT, progress: Progress | None = None) -> Path:
    """Return the interpreter of `.venv`, after making it hold what `uv.lock` pins.

    Quick when nothing changed since the last call; safe when several scripts start at once.
    `selection` is uv's own words for groups and extras; what other selections installed stays.
    Raises `ClusterError` when uv fails or Python cannot be used.
    """
    progress = progress or Progress()
    wanted = _fingerprint(selection)
    stamp = VENV / f"chatbot-{hashlib.sha256(' '.join(selection).encode()).hexdigest()[:8]}.stamp"
    with _only_one():
        if stamp.exists() and stamp.read_text() == wanted and _runs(PYTHON):
            return PYTHON
        uv = toolchain.locate(toolchain.UV, progress)
        # Without an interpreter of its own, uv takes this one: it never downloads another.
        first_time = () if _runs(PYTHON) else ("--python", sys.executable)
        command = [str(uv), "sync", "--frozen", "--inexact", *selection, *first_time]
        environment = {
            **{k: v for k, v in os.environ.items() if k != "VIRTUAL_ENV"},
            "UV_PROJECT_ENVIRONMENT": str(VENV),
            "UV_PYTHON_DOWNLOADS": "never",
        }
        progress.run(command, environment, ROOT, Estimate("installing Python packages", 40))
        stamp.write_text(wanted)
    return PYTHON


def _runs(python: Path) -> bool:
    if not python.exists():
        return False
    probe = "import sys; sys.exit(sys.version_info < (3, 11))"
    return subprocess.run([python, "-c", probe], capture_output=True, check=False).returncode == 0


def _fingerprint(selection: Sequence[str]) -> str:
    parts = [(ROOT / name).read_bytes() for name in ("pyproject.toml", "uv.lock")]
    return hashlib.sha256(b"\0".join([*parts, " ".join(selection).encode()])).hexdigest()


@contextlib.contextmanager
def _only_one() -> Iterator[None]:
    folder = cache_folder(os.environ) / "locks"
    folder.mkdir(parents=True, exist_ok=True)
    name = hashlib.sha256(str(ROOT).encode()).hexdigest()[:16]
    with (folder / name).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def main() -> int:
    """Make the environment and print its interpreter."""
    try:
        print(ensure_venv())
    except ClusterError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
