"""Hands of a test on a real API server: an administrator, and an operator at work."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
from fakes.runtime import FakeRuntime

from chatbot_core import names
from chatbot_operator.kinds import WATCHED, Object, Ref, collection_path, object_path, ref_of
from chatbot_operator.main import Operator
from localkube.testserver import LoopbackServer

#: What an object may have; pods are made by the controllers of Kubernetes.
CHILD_KINDS = (*(kind for kind in WATCHED if kind != "Pod"), "Secret")
OPERATOR = "system:serviceaccount:chatbot-system:chatbot-operator"
_numbers = itertools.count(1)


def new_namespace(server: LoopbackServer) -> str:
    name = f"case-{os.getpid()}-{next(_numbers)}"
    obj = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
    server.api.create("/api/v1/namespaces", obj)
    return name


@dataclass(slots=True)
class Admin:
    """Somebody else: the administrator with kubectl."""

    http: httpx.AsyncClient

    async def create(self, obj: Object) -> Object:
        ref = ref_of(obj)
        answer = await self.http.post(collection_path(ref.kind, ref.namespace), json=obj)
        answer.raise_for_status()
        created: Object = answer.json()
        return created

    async def get(self, ref: Ref) -> Object | None:
        answer = await self.http.get(object_path(ref))
        if answer.status_code == 404:
            return None
        answer.raise_for_status()
        obj: Object = answer.json()
        return obj

    async def list(self, kind: str, namespace: str) -> list[Object]:
        answer = await self.http.get(collection_path(kind, namespace))
        answer.raise_for_status()
        items: list[Object] = answer.json()["items"]
        return items

    async def patch(self, ref: Ref, patch: Any, subresource: str = "") -> Object:
        style = "json-patch+json" if isinstance(patch, list) else "merge-patch+json"
        answer = await self.http.patch(
            object_path(ref, subresource),
            params={"fieldManager": "kubectl-edit"},
            content=json.dumps(patch),
            headers={"Content-Type": f"application/{style}"},
        )
        assert answer.is_success, answer.text
        obj: Object = answer.json()
        return obj

    async def delete(self, ref: Ref, policy: str = "Background") -> None:
        answer = await self.http.request(
            "DELETE", object_path(ref), json={"propagationPolicy": policy}
        )
        answer.raise_for_status()


@dataclass(slots=True)
class Running:
    """An operator at work."""

    operator: Operator
    runtime: FakeRuntime
    server: LoopbackServer
    namespaces: tuple[str, ...]
    _read_from: int = field(default=0)

    def writes(self) -> list[str]:
        """Return every write request of the operator since `forget_writes`, but Events."""
        found = []
        for line in self._whole_lines()[self._read_from :]:
            entry = json.loads(line)
            what = entry.get("objectRef") or {}
            mine = entry["user"]["username"] == OPERATOR and what.get("resource") != "events"
            if mine and what.get("namespace") in self.namespaces:
                parts = (entry["verb"], what["resource"], what.get("name"), what.get("subresource"))
                found.append(" ".join(part for part in parts if part))
        return found

    def _whole_lines(self) -> list[str]:
        # The server may be in the middle of its last line.
        return self.server.audit_log.read_text().rpartition("\n")[0].splitlines()

    def forget_writes(self) -> None:
        self._read_from = len(self._whole_lines())

    async def quiet(self, still_s: float = 2.0, within_s: float = 40.0) -> None:
        """Wait until nothing was written for a while."""
        last, since, ends = -1, 0.0, asyncio.get_running_loop().time() + within_s
        while True:
            now = asyncio.get_running_loop().time()
            count = len(self.writes())
            if count != last:
                last, since = count, now
            if count and now - since >= still_s:
                return
            assert now < ends, f"it never rests: {self.writes()[-20:]}"
            await asyncio.sleep(0.1)


def essence(obj: Object) -> Object:
    """Return what a person sees of an object: no versions, managers, status or server notes."""
    meta = obj["metadata"]
    annotations = {
        key: value
        for key, value in (meta.get("annotations") or {}).items()
        if key.startswith(names.GROUP)
    }
    return {
        "labels": meta.get("labels"),
        "annotations": annotations,
        "owners": meta.get("ownerReferences"),
        **{key: value for key, value in obj.items() if key not in {"metadata", "status"}},
    }


StartOperator = Callable[..., AbstractAsyncContextManager[Running]]


@asynccontextmanager
async def administrator(server: LoopbackServer) -> AsyncIterator[Admin]:
    """Yield the administrator's hands."""
    pem = server.certificates
    context = ssl.create_default_context(cafile=pem / "ca.crt")
    context.load_cert_chain(pem / "admin.crt", pem / "admin.key")
    async with httpx.AsyncClient(
        base_url=server.url, verify=context, timeout=30, trust_env=False
    ) as http:
        yield Admin(http)


async def until(holds: Callable[[], Awaitable[bool]], what: str, within_s: float = 10.0) -> None:
    """Wait until it holds."""
    ends = asyncio.get_running_loop().time() + within_s
    while not await holds():
        assert asyncio.get_running_loop().time() < ends, f"not within {within_s} s: {what}"
        await asyncio.sleep(0.1)
