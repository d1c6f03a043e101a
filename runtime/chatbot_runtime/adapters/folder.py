"""Documents' bytes in a folder of this machine: the store of the `demo` role.

An object appears whole or not at all, also after a power cut: temporary file, fsync, rename, fsync
of the folder (see T. Pillai et al., "All File Systems Are Not Created Equal", OSDI 2014).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import BinaryIO, Final

from chatbot_core.errors import NotFound, Unavailable
from chatbot_runtime.adapters.object_ids import checked

_BLOCK_BYTES: Final = 1 << 18
_TEMPORARY: Final = ".tmp-"


class FolderBlobs:
    """The port `BlobStore` over a folder; ids are paths below it."""

    def __init__(self, name: str, path: Path, unix_s: Callable[[], float]) -> None:
        self._name = name
        self._root = path
        self._unix_s = unix_s

    @property
    def name(self) -> str:
        """Return the store's name in the spec."""
        return self._name

    async def start(self) -> None:
        """Make the folder."""
        await asyncio.to_thread(self._root.mkdir, parents=True, exist_ok=True)

    async def put(self, object_id: str, content: AsyncIterator[bytes], media_type: str) -> None:
        """Store all bytes or nothing; a name and its type stand in the document's row."""
        target = self._root / checked(object_id)
        with _border(self._name):
            await asyncio.to_thread(target.parent.mkdir, parents=True, exist_ok=True)
            file = await asyncio.to_thread(_temporary, target.parent)
            try:
                async for block in content:
                    await asyncio.to_thread(file.write, block)
                await asyncio.to_thread(_finish, file, target)
            except BaseException:
                _discard(file)
                raise

    async def get(self, object_id: str) -> AsyncIterator[bytes]:
        """Yield the bytes. Raises NotFound."""
        target = self._root / checked(object_id)
        with _border(self._name):
            try:
                file = await asyncio.to_thread(target.open, "rb")
            except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
                raise NotFound(f"object {object_id} does not exist") from None
            try:
                while block := await asyncio.to_thread(file.read, _BLOCK_BYTES):
                    yield block
            finally:
                file.close()

    async def delete(self, object_id: str) -> None:
        """Remove an object; no effect where it is gone."""
        target = self._root / checked(object_id)
        with _border(self._name):
            await asyncio.to_thread(target.unlink, missing_ok=True)

    async def older_than(self, age_s: float) -> tuple[str, ...]:
        """Return ids of objects older than that; temporary files of broken uploads are removed."""
        with _border(self._name):
            return await asyncio.to_thread(self._older_than, self._unix_s() - age_s)

    def _older_than(self, before_s: float) -> tuple[str, ...]:
        found: list[str] = []
        for path in sorted(self._root.rglob("*")):
            with contextlib.suppress(FileNotFoundError):
                if not path.is_file() or path.stat().st_mtime >= before_s:
                    continue
                if path.name.startswith(_TEMPORARY):
                    path.unlink()
                else:
                    found.append(path.relative_to(self._root).as_posix())
        return tuple(found)


@contextlib.contextmanager
def _border(name: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise Unavailable(f"document store {name}", error.strerror or "no access") from error


def _temporary(folder: Path) -> BinaryIO:
    number, name = tempfile.mkstemp(dir=folder, prefix=_TEMPORARY)
    os.close(number)
    return Path(name).open("wb")


def _discard(file: BinaryIO) -> None:
    file.close()
    Path(file.name).unlink(missing_ok=True)


def _finish(file: BinaryIO, target: Path) -> None:
    file.flush()
    os.fsync(file.fileno())
    file.close()
    Path(file.name).rename(target)
    folder = os.open(target.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
