"""The stand-in for `versity/versitygw`: an S3 server over a folder, built from its Go module."""

from __future__ import annotations

import shutil
from pathlib import Path

from images import archive
from images.process import Say
from images.stand_in import StandIn
from localkube import build as servers

PROGRAM = "versitygw"


def _fill(tree: Path, say: Say) -> None:
    say("s3-gateway: building the server")
    program = servers.binaries([PROGRAM]) / PROGRAM
    target = tree / "usr/local/bin" / PROGRAM
    target.parent.mkdir(parents=True)
    shutil.copy(program, target)
    target.chmod(0o755)
    (tree / "data").mkdir()


STAND_IN = StandIn(
    name="s3-gateway",
    inputs=(servers.PROGRAMS[PROGRAM].package,),
    files=(Path(__file__), servers.MODULE / "go.mod", servers.MODULE / "go.sum"),
    fill=_fill,
    config=archive.ImageConfig(
        env={"PATH": "/usr/local/bin:/usr/bin:/bin"},
        entrypoint=(f"/usr/local/bin/{PROGRAM}",),
        ports=(7070,),
    ),
    owner=lambda name: (10001, 10001) if name == "data" else (0, 0),
)
