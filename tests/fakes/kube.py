"""An API server in memory: keeps the promises of `Kube` that the operator's shell relies on.

It merges applies without knowing schemas (lists are atomic) and collects no garbage; what needs
more is tested on a real API server. `tests/fakes/kube_contract.py` holds the promises; the fake
and the real client pass it alike.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from copy import deepcopy
from dataclasses import dataclass, field

from chatbot_core.errors import ChatbotError, Unavailable
from chatbot_operator.kinds import Object, Ref, ref_of, uid_of, version_of
from chatbot_operator.kube import (
    NAMESPACE_TERMINATING,
    Page,
    WatchEvent,
    WatchExpiredError,
    WriteRefused,
)

#: When this server deletes what a finalizer holds.
DELETED_AT = "2026-01-02T03:04:05Z"


@dataclass(slots=True)
class FakeKube:
    """Objects by ref; `calls` lists every write as (verb, ref)."""

    objects: dict[Ref, Object] = field(default_factory=dict)
    calls: list[tuple[str, Ref]] = field(default_factory=list)
    refuse: dict[Ref, WriteRefused] = field(default_factory=dict)
    ending: set[str] = field(default_factory=set)
    unreadable: dict[str, ChatbotError] = field(default_factory=dict)
    down: bool = False
    forgotten_before: int = 0
    version: int = 100
    log: list[tuple[int, WatchEvent]] = field(default_factory=list)
    news: asyncio.Condition = field(default_factory=asyncio.Condition)
    watch_s: float = 0.2
    page: int = 2

    async def get(self, ref: Ref) -> Object | None:
        self._answer()
        return deepcopy(self.objects.get(ref))

    async def pages(self, kind: str, namespace: str, selector: str) -> AsyncIterator[Page]:
        self._answer()
        if kind in self.unreadable:
            raise self.unreadable[kind]
        items = [
            deepcopy(obj)
            for ref, obj in self.objects.items()
            if ref.kind == kind and namespace in {"", ref.namespace} and _selected(obj, selector)
        ]
        version = str(self.version)
        for start in range(0, len(items) or 1, self.page):
            if start and int(version) < self.forgotten_before:
                raise WatchExpiredError(version)
            yield Page(tuple(items[start : start + self.page]), version)

    async def watch(
        self, kind: str, namespace: str, selector: str, resource_version: str
    ) -> AsyncIterator[WatchEvent]:
        self._answer()
        if int(resource_version) < self.forgotten_before:
            raise WatchExpiredError(resource_version)
        position = 0
        ends_s = asyncio.get_running_loop().time() + self.watch_s
        while asyncio.get_running_loop().time() < ends_s:
            while position < len(self.log):
                version, event = self.log[position]
                position += 1
                fits = event.object["kind"] == kind and _selected(event.object, selector)
                if version > int(resource_version) and fits:
                    yield deepcopy(event)
            try:
                async with asyncio.timeout_at(ends_s), self.news:
                    await self.news.wait()
            except TimeoutError:
                return

    async def apply(self, obj: Object, manager: str) -> Object | WriteRefused:
        ref = ref_of(obj)
        live = self.objects.get(ref)
        uid = obj["metadata"].get("uid")
        self._count("apply", ref)
        if ref in self.refuse:
            return self.refuse[ref]
        if uid is not None and (live is None or uid_of(live) != uid):
            return WriteRefused(409, "Conflict", "Precondition failed: UID in precondition")
        version = obj["metadata"].get("resourceVersion")
        if version is not None and (live is None or version_of(live) != version):
            return WriteRefused(409, "Conflict", "the object has been modified")
        if live is None and ref.namespace in self.ending:
            return WriteRefused(403, NAMESPACE_TERMINATING, "it is being terminated")
        return await self._put(ref, _merged(live or {}, obj), "MODIFIED" if live else "ADDED")

    async def apply_status(self, obj: Object) -> Object | WriteRefused:
        ref = ref_of(obj)
        live = self.objects.get(ref)
        self._count("apply-status", ref)
        if ref in self.refuse:
            return self.refuse[ref]
        if live is None:
            return WriteRefused(404, "NotFound", f"{ref} not found")
        if obj["metadata"].get("uid", uid_of(live)) != uid_of(live):
            return WriteRefused(409, "Conflict", "Precondition failed: UID in precondition")
        return await self._put(ref, {**live, "status": deepcopy(obj["status"])}, "MODIFIED")

    async def replace(self, obj: Object) -> Object | WriteRefused:
        ref = ref_of(obj)
        live = self.objects.get(ref)
        self._count("replace", ref)
        if ref in self.refuse:
            return self.refuse[ref]
        if live is None:
            return WriteRefused(404, "NotFound", f"{ref} not found")
        if obj["metadata"]["resourceVersion"] != live["metadata"]["resourceVersion"]:
            return WriteRefused(409, "Conflict", "the object has been modified")
        return await self._put(ref, deepcopy(obj), "MODIFIED")

    async def set_finalizers(
        self, live: Object, finalizers: Sequence[str]
    ) -> Object | WriteRefused:
        ref = ref_of(live)
        there = self.objects.get(ref)
        self._count("set-finalizers", ref)
        if there is None:
            return WriteRefused(404, "NotFound", f"{ref} not found")
        if there["metadata"]["resourceVersion"] != live["metadata"]["resourceVersion"]:
            return WriteRefused(409, "Conflict", "the object has been modified")
        changed = {**there, "metadata": {**there["metadata"], "finalizers": list(finalizers)}}
        answer = await self._put(ref, deepcopy(changed), "MODIFIED")
        if not finalizers and "deletionTimestamp" in there["metadata"]:
            await self.remove(ref)
        return answer

    async def create(self, obj: Object) -> Object | WriteRefused:
        ref = ref_of(obj)
        self._count("create", ref)
        if ref in self.refuse:
            return self.refuse[ref]
        if ref.namespace in self.ending:
            return WriteRefused(403, NAMESPACE_TERMINATING, "it is being terminated")
        if ref in self.objects:
            return WriteRefused(409, "AlreadyExists", f"{ref} already exists")
        return await self._put(ref, deepcopy(obj), "ADDED")

    async def delete(self, ref: Ref, uid: str, resource_version: str) -> WriteRefused | None:
        self._count("delete", ref)
        live = self.objects.get(ref)
        if live is None:
            return None
        meta = live["metadata"]
        if (meta["uid"], meta["resourceVersion"]) != (uid, resource_version):
            return WriteRefused(409, "Conflict", "Precondition failed")
        if meta.get("finalizers"):
            going = {**live, "metadata": {**meta, "deletionTimestamp": DELETED_AT}}
            await self._put(ref, going, "MODIFIED")
        else:
            await self.remove(ref)
        return None

    async def remove(self, ref: Ref) -> None:
        """Delete as somebody else."""
        gone = self.objects.pop(ref)
        self.version += 1
        gone["metadata"]["resourceVersion"] = str(self.version)
        await self._publish(WatchEvent("DELETED", gone))

    async def put_live(self, obj: Object) -> Object:
        """Create or change an object as somebody else."""
        ref = ref_of(obj)
        return await self._put(ref, deepcopy(obj), "MODIFIED" if ref in self.objects else "ADDED")

    async def _put(self, ref: Ref, obj: Object, event: str) -> Object:
        self.version += 1
        live = self.objects.get(ref)
        uid = uid_of(live) if live else f"uid-{self.version}"
        obj["metadata"] = {**obj["metadata"], "uid": uid, "resourceVersion": str(self.version)}
        self.objects[ref] = obj
        await self._publish(WatchEvent(event, deepcopy(obj)))
        return deepcopy(obj)

    async def _publish(self, event: WatchEvent) -> None:
        async with self.news:
            self.log.append((self.version, event))
            self.news.notify_all()

    def _count(self, verb: str, ref: Ref) -> None:
        self._answer()
        self.calls.append((verb, ref))

    def _answer(self) -> None:
        if self.down:
            raise Unavailable("Kubernetes API", "down")


def _selected(obj: Object, selector: str) -> bool:
    labels = obj["metadata"].get("labels") or {}
    parts = [part.split("=") for part in selector.split(",") if part]
    return all(labels.get(name) == value for name, value in parts)


def _merged(live: Object, wanted: Object) -> Object:
    merged = deepcopy(live)
    for key, value in wanted.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = _merged(merged[key], value) if both else deepcopy(value)
    return merged
