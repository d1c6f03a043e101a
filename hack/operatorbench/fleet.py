"""The measured objects: made, edited and watched from outside the operator."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import random
import time
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final

from chatbot_core import names
from chatbot_core.retry import Clockwork
from chatbot_operator import entries, feeders
from chatbot_operator.feeders import CHILD_SELECTOR, Feed
from chatbot_operator.heartbeats import Heartbeats
from chatbot_operator.kinds import Object, Ref, uid_of, version_of
from chatbot_operator.kube import KubeClient, WriteRefused
from chatbot_operator.model import Owner
from chatbot_operator.store import OwnerKey, Store

#: With eight shards an object has about forty children, its pods included.
SHARDS: Final = 8
#: Kubernetes holds up to about 1,500 custom objects and 5,000 Services in one namespace.
PER_NAMESPACE: Final = 50
_MANAGER: Final = "bench"
_AT_ONCE: Final = 8


def spec(shards: int = SHARDS, passages: int = 3) -> dict[str, Any]:
    """Return a spec; `passages` is what an edit changes, which every process reads live."""
    return {
        "inference": {"model": "smollm2:135m"},
        "retrieval": {"shards": shards, "minPassages": passages},
    }


def keys(clusters: int) -> list[OwnerKey]:
    """Return namespace and name of every object."""
    return [(f"fleet-{n // PER_NAMESPACE:02}", f"chat-{n:04}") for n in range(clusters)]


@dataclass(slots=True)
class View:
    """What the benchmark sees of the cluster: owners, documents of ConfigMaps, internal tokens."""

    kube: KubeClient
    owners: Store[Ref, Owner] = field(default_factory=lambda: _store(Owner))
    documents: Store[Ref, str] = field(default_factory=lambda: _store(str))
    tokens: Store[Ref, str] = field(default_factory=lambda: _store(str))

    def document(self, key: OwnerKey) -> str | None:
        """Return the document that an object's processes read."""
        return self.documents.get(Ref("ConfigMap", key[0], names.config_map(key[1])))

    def is_ready(self, key: OwnerKey) -> bool:
        """Whether the object says Ready of its current generation."""
        owner = self.owners.get(Ref(names.KIND, *key))
        return self.is_seen(key) and feeders.is_ready(owner)

    def is_seen(self, key: OwnerKey) -> bool:
        """Whether the status speaks of the current generation."""
        owner = self.owners.get(Ref(names.KIND, *key))
        return owner is not None and owner.status.get("observedGeneration") == owner.generation

    async def apply(self, key: OwnerKey, wanted: dict[str, Any]) -> None:
        """Create or edit an object as its user does."""
        meta = {"namespace": key[0], "name": key[1]}
        obj = {"apiVersion": names.API_VERSION, "kind": names.KIND, "metadata": meta}
        answer = await self.kube.apply({**obj, "spec": wanted}, _MANAGER)
        if isinstance(answer, WriteRefused):
            raise RuntimeError(answer.message)  # noqa: TRY004 - a refusal is no wrong type

    async def apply_all(self, wanted_of: Iterable[tuple[OwnerKey, dict[str, Any]]]) -> None:
        """Create or edit many objects, several at a time."""
        places = asyncio.Semaphore(_AT_ONCE)

        async def one(key: OwnerKey, wanted: dict[str, Any]) -> None:
            async with places:
                await self.apply(key, wanted)

        await asyncio.gather(*(one(key, wanted) for key, wanted in wanted_of))

    async def delete(self, ref: Ref) -> None:
        """Delete a child as a careless hand does."""
        live = await self.kube.get(ref)
        if live is not None:
            await self.kube.delete(ref, uid_of(live), version_of(live))


def _store(_: type[Any]) -> Store[Any, Any]:
    return Store(lambda key: None)


def _document(obj: Object) -> str:
    return str((obj.get("data") or {}).get(names.CONFIG_KEY, ""))


def _token(obj: Object) -> str:
    return base64.b64decode((obj.get("data") or {}).get(names.KEY_TOKEN, "")).decode()


def _internal(obj: Object) -> OwnerKey | None:
    owner = entries.owner_of(obj)
    mine = owner is not None and obj["metadata"]["name"] == names.internal_secret(owner[1])
    return owner if mine else None


@asynccontextmanager
async def watching(kube: KubeClient) -> AsyncIterator[View]:
    """Keep a view level with the API server."""
    view = View(kube)
    clockwork = Clockwork(time.monotonic, asyncio.sleep, random.random)
    heartbeats = Heartbeats(time.monotonic)

    def keep(feed: Feed[Any]) -> asyncio.Task[None]:
        return asyncio.create_task(feeders.list_watch(kube, feed, heartbeats, clockwork))

    tasks = [
        keep(feeders.owner_feed("", view.owners)),
        keep(Feed("ConfigMap", "", CHILD_SELECTOR, view.documents, _document)),
        keep(Feed("Secret", "", CHILD_SELECTOR, view.tokens, _token, _internal)),
    ]
    try:
        yield view
    finally:
        for task in tasks:
            task.cancel()
        for task in tasks:
            with contextlib.suppress(asyncio.CancelledError):
                await task


async def until(holds: Callable[[], bool], what: str, within_s: float) -> float:
    """Wait until it holds; return the seconds it took. Raises TimeoutError with the words."""
    start_s = time.monotonic()
    while not holds():
        if time.monotonic() - start_s > within_s:
            raise TimeoutError(f"{what}: not within {within_s:.0f} s")
        await asyncio.sleep(0.02)
    return time.monotonic() - start_s
