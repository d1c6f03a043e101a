"""Documents' bytes in an S3 bucket: a cloud's, or the gateway over a claim.

boto3 runs in threads with its own retries off. Objects up to 8 MiB are one PUT; longer ones are a
multipart upload, which is visible whole or not at all and aborted when it breaks. Credentials are
read anew when the service refuses them (rotation); without mounted ones the SDK's own chain
applies (workload identity).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from chatbot_core import names
from chatbot_core.errors import NotFound, Unavailable
from chatbot_core.runtime_config import S3Store
from chatbot_runtime.adapters.object_ids import checked
from chatbot_runtime.adapters.s3_erase import Erased, erase
from chatbot_runtime.ports import ReadSecret

log = logging.getLogger(__name__)


PART_BYTES: Final = 8 << 20
_BLOCK_BYTES: Final = 1 << 18
_GONE: Final = frozenset({"NoSuchKey", "404", "NotFound"})
_OURS_ALREADY: Final = frozenset({"BucketAlreadyOwnedByYou", "BucketAlreadyExists"})
_NO_VERSIONS: Final = frozenset({"NotImplemented", "MethodNotAllowed", "VersioningNotConfigured"})
_REFUSED: Final = frozenset(
    {"InvalidAccessKeyId", "SignatureDoesNotMatch", "AccessDenied", "ExpiredToken", "403"}
)


class S3Blobs:
    """The port `BlobStore` over one bucket and prefix."""

    def __init__(
        self,
        store: S3Store,
        read_secret: ReadSecret,
        unix_s: Callable[[], float],
        ca_file: Path | None = None,
    ) -> None:
        self._store = store
        self._read_secret = read_secret
        self._unix_s = unix_s
        self._ca_file = ca_file
        self._known: tuple[str, str] | None = None
        self._made: Any = None

    @property
    def name(self) -> str:
        """Return the store's name in the spec."""
        return self._store.name

    async def start(self) -> None:
        """Make the bucket where the config says so. Raises Unavailable."""
        if not self._store.create_bucket:
            return
        options: dict[str, Any] = {}
        if self._store.region != "us-east-1":  # the one region that refuses to be named here
            options["CreateBucketConfiguration"] = {"LocationConstraint": self._store.region}
        with self._border("of the bucket"):
            try:
                await self._call("create_bucket", **options)
            except ClientError as error:
                if _code(error) not in _OURS_ALREADY:
                    raise

    async def put(self, object_id: str, content: AsyncIterator[bytes], media_type: str) -> None:
        """Store all bytes or nothing, at most 8 MiB of them in memory."""
        key = self._key(object_id)
        options: dict[str, Any] = {"ContentType": media_type}
        if self._store.server_side_encryption:
            options["ServerSideEncryption"] = self._store.server_side_encryption
        parts = _parts(content)
        with self._border(object_id):
            first = await anext(parts)
            if len(first) < PART_BYTES:
                await self._call("put_object", Key=key, Body=first, **options)
            else:
                await self._put_parts(key, first, parts, options)

    async def get(self, object_id: str) -> AsyncIterator[bytes]:
        """Yield the bytes. Raises NotFound."""
        with self._border(object_id):
            body = (await self._call("get_object", Key=self._key(object_id)))["Body"]
            try:
                while block := await asyncio.to_thread(body.read, _BLOCK_BYTES):
                    yield block
            finally:
                body.close()

    async def delete(self, object_id: str) -> None:
        """Remove an object; no effect where it is gone."""
        with contextlib.suppress(NotFound), self._border(object_id):
            await self._call("delete_object", Key=self._key(object_id))

    async def older_than(self, age_s: float) -> tuple[str, ...]:
        """Return ids of objects older than that."""
        before = datetime.fromtimestamp(self._unix_s() - age_s, UTC)
        found: list[str] = []
        options: dict[str, Any] = {"Prefix": self._store.prefix}
        with self._border("list"):
            while True:
                page = await self._call("list_objects_v2", **options)
                found += [
                    entry["Key"].removeprefix(self._store.prefix)
                    for entry in page.get("Contents", ())
                    if entry["LastModified"] < before
                ]
                if not page.get("IsTruncated"):
                    return tuple(found)
                options["ContinuationToken"] = page["NextContinuationToken"]

    async def erase(self) -> Erased:
        """Remove all that is ours below the prefix, former versions too. Raises Unavailable."""
        with self._border("erase"):
            try:
                versions = await self._keeps_versions()
                return await erase(self._call, self._store.prefix, versions=versions)
            except ClientError as error:
                if _code(error) != "NoSuchBucket":
                    raise
                log.warning("bucket does not exist", extra={"bucket": self._store.bucket})
                return Erased()

    async def _keeps_versions(self) -> bool:
        """Return whether the bucket holds or held versions; some gateways do not know them."""
        try:
            answer = await self._call("get_bucket_versioning")
        except ClientError as error:
            if _code(error) in _NO_VERSIONS:
                return False
            raise
        return "Status" in answer

    async def _put_parts(
        self, key: str, first: bytes, parts: AsyncIterator[bytes], options: dict[str, Any]
    ) -> None:
        made = await self._call("create_multipart_upload", Key=key, **options)
        upload = {"Key": key, "UploadId": made["UploadId"]}
        try:
            done = [await self._put_part(upload, 1, first)]
            async for part in parts:
                done.append(await self._put_part(upload, len(done) + 1, part))
            await self._call("complete_multipart_upload", MultipartUpload={"Parts": done}, **upload)
        except BaseException:
            # Parts of an upload that nobody completes cost space; a bucket rule is the second net.
            with contextlib.suppress(ClientError, BotoCoreError):
                await asyncio.shield(self._call("abort_multipart_upload", **upload))
            raise

    async def _put_part(
        self, upload: dict[str, Any], number: int, part: bytes
    ) -> dict[str, object]:
        answer = await self._call("upload_part", Body=part, PartNumber=number, **upload)
        return {"ETag": answer["ETag"], "PartNumber": number}

    async def _call(self, operation: str, **options: Any) -> Any:
        """Run one operation on the bucket; once more with fresh credentials if they changed."""
        try:
            return await self._run(operation, options)
        except ClientError as error:
            if _code(error) not in _REFUSED or self._credentials() == self._known:
                raise
            log.info("credentials of the document store changed", extra={"store": self.name})
            self._made = None
            return await self._run(operation, options)

    async def _run(self, operation: str, options: dict[str, Any]) -> Any:
        if self._made is None:
            self._known = self._credentials()
            self._made = await asyncio.to_thread(self._client, self._known)
        method = getattr(self._made, operation)
        return await asyncio.to_thread(lambda: method(Bucket=self._store.bucket, **options))

    def _credentials(self) -> tuple[str, str] | None:
        try:
            return (
                self._read_secret(f"{self._store.folder}/{names.KEY_ACCESS_KEY_ID}"),
                self._read_secret(f"{self._store.folder}/{names.KEY_SECRET_ACCESS_KEY}"),
            )
        except NotFound:
            return None

    def _client(self, credentials: tuple[str, str] | None) -> Any:
        key_id, secret = credentials or (None, None)
        return boto3.session.Session().client(
            "s3",
            endpoint_url=self._store.endpoint or None,
            region_name=self._store.region,
            aws_access_key_id=key_id,
            aws_secret_access_key=secret,
            verify=str(self._ca_file) if self._ca_file else None,
            config=Config(
                retries={"total_max_attempts": 1},
                connect_timeout=5,
                read_timeout=30,
                max_pool_connections=16,
                # Gateways that speak S3 need not know the newer trailing checksums.
                request_checksum_calculation="when_required",
                response_checksum_validation="when_required",
                s3={"addressing_style": "path" if self._store.path_style else "auto"},
            ),
        )

    def _key(self, object_id: str) -> str:
        return self._store.prefix + checked(object_id)

    @contextlib.contextmanager
    def _border(self, object_id: str) -> Iterator[None]:
        try:
            yield
        except ClientError as error:
            if _code(error) in _GONE:
                raise NotFound(f"object {object_id} does not exist") from error
            raise self._unavailable(error) from error
        except (BotoCoreError, OSError) as error:
            raise Unavailable(f"document store {self.name}", type(error).__name__) from error

    def _unavailable(self, error: ClientError) -> Unavailable:
        return Unavailable(f"document store {self.name}", _code(error))


def _code(error: ClientError) -> str:
    return str(error.response.get("Error", {}).get("Code", "unknown"))


async def _parts(content: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Yield parts of exactly PART_BYTES and a shorter last one, empty only for an empty object."""
    buffer = bytearray()
    sent = False
    async for block in content:
        buffer += block
        while len(buffer) >= PART_BYTES:
            yield bytes(buffer[:PART_BYTES])
            sent = True
            del buffer[:PART_BYTES]
    if buffer or not sent:
        yield bytes(buffer)
