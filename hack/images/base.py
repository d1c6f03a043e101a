"""The stand-in for `python:3.x-slim`: a slim Debian with Python, made without a registry.

Packages are only extracted (no maintainer scripts run); what those scripts would have made, such
as /etc/passwd and the bundle of certificate authorities, is written here.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from images import archive, cache
from images.archive import Layer
from images.errors import ImageError
from images.process import Say, need_debian_packages, run

SUITE = "bookworm"
PYTHON_VERSION = "3.11"
REPOSITORY_NAME = "localhost/chatbot-base"
PACKAGES = (
    "base-files",
    "bash",
    "ca-certificates",
    "coreutils",
    "dash",
    "findutils",
    "grep",
    "libc-bin",
    "libstdc++6",
    "netbase",
    "python3",
    "sed",
    "tzdata",
)
_MERGED_USR_HOOKS = Path("/usr/share/mmdebstrap/hooks/merged-usr")
_SURPLUS = (
    "boot",
    "dev/*",
    "etc/apt",
    "etc/cron.daily",
    "etc/debconf.conf",
    "etc/dpkg",
    "etc/hostname",
    "etc/logrotate.d",
    "etc/mime.types",
    "etc/resolv.conf",
    "usr/bin/perl*",
    "usr/lib/python3.11/ensurepip",
    "usr/lib/python3.11/lib2to3",
    "usr/lib/python3.11/pydoc_data",
    "usr/lib/python3.11/test",
    "usr/lib/*-linux-gnu/gconv",
    "usr/lib/*-linux-gnu/perl*",
    "usr/lib/*-linux-gnu/libperl*",
    "usr/share/bash-completion",
    "usr/share/debconf",
    "usr/share/doc",
    "usr/share/info",
    "usr/share/lintian",
    "usr/share/locale",
    "usr/share/man",
    "usr/share/perl*",
    "usr/share/python-wheels",
    "var/cache/*",
    "var/lib/apt",
    "var/lib/dpkg",
    "var/log/*",
)
_ETC = {
    "passwd": (
        "root:x:0:0:root:/root:/bin/bash\n"
        "postgres:x:999:999::/var/lib/postgresql:/usr/sbin/nologin\n"
        "nobody:x:65534:65534::/nonexistent:/usr/sbin/nologin\n"
    ),
    "group": "root:x:0:\npostgres:x:999:\nnogroup:x:65534:\n",
    "nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\nservices: files\n",
}


@dataclass(frozen=True, slots=True)
class Base:
    """The built base image and its one layer."""

    name: str
    archive: Path
    layer: Layer


def tag() -> str:
    """Return the content hash of the recipe: packages and what this file does with them."""
    return cache.tag_of([SUITE, archive.architecture()], [Path(__file__)])


def build(say: Say) -> Base:
    """Return the base image, from the cache where its recipe is unchanged.

    Raises ImageError where this machine cannot build it (not root, no network to Debian's mirror).
    """
    with cache.locked("base"):
        layer_path = cache.folder() / f"base-{tag()}.layer.tar"
        image_path = cache.folder() / f"base-{tag()}.tar"
        if not (layer_path.exists() and image_path.exists()):
            _build(say)
        return Base(f"{REPOSITORY_NAME}:{tag()}", image_path, _known(layer_path))


def _known(layer_path: Path) -> Layer:
    return Layer(layer_path, archive.file_digest(layer_path))


def _build(say: Say) -> None:
    need_debian_packages({"mmdebstrap": "mmdebstrap"}, say)
    with cache.staging("base") as scratch:
        tree = scratch / "tree"
        _extract(tree, say)
        _slim(tree)
        _configure(tree, say)
        layer = archive.write_layer(tree, scratch / "layer.tar")
        config = archive.ImageConfig({"LANG": "C.UTF-8"}, command=("bash",), user="0:0")
        archive.write_image(scratch / "image.tar", f"{REPOSITORY_NAME}:{tag()}", [layer], config)
        cache.publish(scratch / "layer.tar", "base", tag(), ".layer.tar")
        cache.publish(scratch / "image.tar", "base", tag(), ".tar")


def _extract(tree: Path, say: Say) -> None:
    hooks = [f"--hook-dir={_MERGED_USR_HOOKS}"] if _MERGED_USR_HOOKS.is_dir() else []
    command = [
        "mmdebstrap",
        "--variant=extract",
        *hooks,
        f"--include={','.join(PACKAGES)}",
        SUITE,
        str(tree),
    ]
    run("base: extracting Debian packages", command, say)


def _slim(tree: Path) -> None:
    for pattern in _SURPLUS:
        for path in tree.glob(pattern):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()


def _configure(tree: Path, say: Say) -> None:
    for name, content in _ETC.items():
        (tree / "etc" / name).write_text(content)
    authorities = sorted((tree / "usr/share/ca-certificates").rglob("*.crt"))
    if not authorities:
        raise ImageError("base: the Debian package ca-certificates holds no certificate authority")
    bundle = tree / "etc/ssl/certs/ca-certificates.crt"
    bundle.parent.mkdir(parents=True, exist_ok=True)
    bundle.write_text("".join(path.read_text() for path in authorities))
    for link, target in (("var/run", "/run"), ("var/lock", "/run/lock")):
        if not (tree / link).is_symlink():
            shutil.rmtree(tree / link, ignore_errors=True)
            (tree / link).symlink_to(target)
    for folder, mode in (("tmp", 0o1777), ("var/tmp", 0o1777), ("opt", 0o755), ("run", 0o755)):
        (tree / folder).mkdir(exist_ok=True)
        (tree / folder).chmod(mode)
    # The image runs read-only: bytecode that is not there now is compiled at every start.
    compiling = ["python3", "-m", "compileall", "-q", "--invalidation-mode", "unchecked-hash"]
    run(
        "base: compiling the standard library",
        ["chroot", tree, "/usr/bin/env", "-i", *compiling, "/usr/lib/python3.11"],
        say,
    )
