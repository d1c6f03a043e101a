"""Empties a store's prefix for good: objects, their former versions, unfinished uploads.

Only keys of the form that this service gives its own are removed. What else lies below the prefix
belongs to somebody and stays; it is counted and its first key named. Every step may be repeated.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from chatbot_runtime.adapters.object_ids import is_ours

#: Most keys that one DeleteObjects may name (S3 API Reference, DeleteObjects).
BATCH: Final = 1000

#: One S3 operation on the bucket: its name in boto3 and its options.
Call = Callable[..., Awaitable[Any]]


@dataclass(slots=True)
class Erased:
    """What was removed (versions and delete markers count), and what was left to others."""

    objects: int = 0
    uploads: int = 0
    kept: int = 0
    first_kept: str = ""
    failed: str = ""


async def erase(call: Call, prefix: str, *, versions: bool) -> Erased:
    """Remove everything of ours below a prefix; `versions` False where a gateway keeps none."""
    done = Erased()
    await _uploads(call, prefix, done)
    operation = "list_object_versions" if versions else "list_objects_v2"
    options: dict[str, Any] = {"Prefix": prefix, "MaxKeys": BATCH}
    while True:
        page = await call(operation, **options)
        await _delete(call, list(_ours(page, prefix, done)), done)
        if not page.get("IsTruncated"):
            return done
        options |= _next(page)


def _ours(page: dict[str, Any], prefix: str, done: Erased) -> Iterator[dict[str, str]]:
    for field in ("Versions", "DeleteMarkers", "Contents"):
        for entry in page.get(field) or ():
            key = str(entry["Key"])
            if is_ours(key.removeprefix(prefix)):
                yield {name: entry[name] for name in ("Key", "VersionId") if name in entry}
            else:
                done.kept += 1
                done.first_kept = done.first_kept or key


def _next(page: dict[str, Any]) -> dict[str, Any]:
    if "NextContinuationToken" in page:
        return {"ContinuationToken": page["NextContinuationToken"]}
    marks = {"KeyMarker": page.get("NextKeyMarker", "")}
    if page.get("NextVersionIdMarker"):
        marks["VersionIdMarker"] = page["NextVersionIdMarker"]
    return marks


async def _delete(call: Call, batch: list[dict[str, str]], done: Erased) -> None:
    if not batch:
        return
    answer = await call("delete_objects", Delete={"Objects": batch, "Quiet": True})
    errors = answer.get("Errors") or ()
    done.objects += len(batch) - len(errors)
    for error in errors:
        done.failed = done.failed or f"{error.get('Key')}: {error.get('Code')}"


async def _uploads(call: Call, prefix: str, done: Erased) -> None:
    options: dict[str, Any] = {"Prefix": prefix}
    while True:
        page = await call("list_multipart_uploads", **options)
        for one in page.get("Uploads") or ():
            if is_ours(str(one["Key"]).removeprefix(prefix)):
                await call("abort_multipart_upload", Key=one["Key"], UploadId=one["UploadId"])
                done.uploads += 1
        if not page.get("IsTruncated"):
            return
        options["KeyMarker"] = page.get("NextKeyMarker", "")
        options["UploadIdMarker"] = page.get("NextUploadIdMarker", "")
