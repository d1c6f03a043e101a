"""What a document store promises, of the fake, a folder and a real S3 gateway alike."""

from __future__ import annotations

import socket
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from fakes.blobs import FakeBlobs
from fakes.gateway import KEYS

from chatbot_core import names
from chatbot_core.errors import Invalid, NotFound, Unavailable
from chatbot_core.runtime_config import S3Store
from chatbot_runtime import ports
from chatbot_runtime.adapters.folder import FolderBlobs
from chatbot_runtime.adapters.s3 import PART_BYTES, S3Blobs


class MovedClock:
    """The real time, moved by what the test wants."""

    def __init__(self) -> None:
        self.ahead_s = 0.0

    def monotonic_s(self) -> float:
        return time.monotonic() + self.ahead_s

    def unix_s(self) -> float:
        return time.time() + self.ahead_s


def bucket(url: str, name: str = "docs", prefix: str = "a/b/") -> S3Store:
    return S3Store(bucket=name, endpoint=url, prefix=prefix, path_style=True, create_bucket=True)


@pytest.fixture
def clock() -> MovedClock:
    return MovedClock()


@pytest.fixture(params=["fake", "folder", "s3"])
async def store(
    request: pytest.FixtureRequest, tmp_path: Path, clock: MovedClock
) -> ports.BlobStore:
    made: FakeBlobs | FolderBlobs | S3Blobs
    if request.param == "fake":
        made = FakeBlobs(clock)
    elif request.param == "folder":
        made = FolderBlobs("main", tmp_path / "documents", clock.unix_s)
    else:
        url = request.getfixturevalue("gateway")
        made = S3Blobs(
            bucket(url, f"t-{tmp_path.name[-20:].strip('_-').replace('_', '-')}"),
            KEYS.__getitem__,
            clock.unix_s,
        )
    await made.start()
    await made.start()
    return made


async def blocks(*parts: bytes) -> AsyncIterator[bytes]:
    for part in parts:
        yield part


async def broken(*parts: bytes) -> AsyncIterator[bytes]:
    for part in parts:
        yield part
    raise Unavailable("browser", "went away")


async def content(store: ports.BlobStore, object_id: str) -> bytes:
    return b"".join([block async for block in store.get(object_id)])


LONG = [bytes([n]) * (1 << 20) for n in range(19)]


@pytest.mark.parametrize("parts", [[], [b"one"], [b"one", b"two"], LONG, [bytes(PART_BYTES)]])
async def test_bytes_come_back_as_they_were_stored(
    store: ports.BlobStore, parts: list[bytes]
) -> None:
    assert store.name == "main"
    await store.put("w/1", blocks(*parts), "text/plain")
    assert await content(store, "w/1") == b"".join(parts)
    await store.put("w/1", blocks(b"new"), "text/plain")
    assert await content(store, "w/1") == b"new"


async def test_what_is_not_there_is_said_and_deleting_it_is_nothing(
    store: ports.BlobStore,
) -> None:
    await store.put("w/1", blocks(b"x"), "text/plain")
    await store.delete("w/1")
    await store.delete("w/1")
    for object_id in ("w/1", "w", "w/1/2"):
        with pytest.raises(NotFound):
            await content(store, object_id)


@pytest.mark.parametrize("parts", [[b"half"], LONG])
async def test_a_broken_upload_leaves_nothing(
    store: ports.BlobStore, parts: list[bytes], clock: MovedClock
) -> None:
    with pytest.raises(Unavailable, match="browser"):
        await store.put("w/1", broken(*parts), "text/plain")
    with pytest.raises(NotFound):
        await content(store, "w/1")
    clock.ahead_s = 3600
    assert await store.older_than(60) == ()


@pytest.mark.parametrize(
    "object_id", ["../x", "w/../../x", "/etc/passwd", "w//x", "w/", "", ".hidden", "w/a b", "w/é"]
)
async def test_an_id_cannot_leave_its_place(store: ports.BlobStore, object_id: str) -> None:
    with pytest.raises(Invalid, match="object_id"):
        await store.put(object_id, blocks(b"x"), "text/plain")
    with pytest.raises(Invalid, match="object_id"):
        await content(store, object_id)
    with pytest.raises(Invalid, match="object_id"):
        await store.delete(object_id)


async def test_old_objects_are_listed_by_their_ids(
    store: ports.BlobStore, clock: MovedClock
) -> None:
    for object_id in ("w/1", "v/2"):
        await store.put(object_id, blocks(b"x"), "text/plain")
    assert await store.older_than(60) == ()
    clock.ahead_s = 3600
    assert set(await store.older_than(60)) == {"w/1", "v/2"}


async def test_rotated_credentials_are_read_when_the_old_ones_are_refused(gateway: str) -> None:
    current = dict(KEYS)
    store = S3Blobs(bucket(gateway, "rotation"), current.__getitem__, time.time)
    await store.start()
    current[names.FILE_SECRET_ACCESS_KEY] = "wrong-secret-1"
    store._made = None
    with pytest.raises(Unavailable, match="SignatureDoesNotMatch"):
        await store.put("w/1", blocks(b"x"), "text/plain")
    current.update(KEYS)
    await store.put("w/1", blocks(b"x"), "text/plain")
    assert await content(store, "w/1") == b"x"


async def test_a_gateway_that_is_away_is_unavailable(unused_port: Callable[[], int]) -> None:
    store = S3Blobs(bucket(f"http://127.0.0.1:{unused_port()}"), KEYS.__getitem__, time.time)
    with pytest.raises(Unavailable, match="document store main"):
        await store.start()
    with pytest.raises(Unavailable, match="document store main"):
        await store.put("w/1", blocks(b"x"), "text/plain")


@pytest.fixture
def unused_port() -> Callable[[], int]:
    def port() -> int:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            number: int = free.getsockname()[1]
            return number

    return port
