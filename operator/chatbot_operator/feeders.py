"""Feeders of the stores: `list_watch` for what the API server tells, polls for what is asked.

A list takes the place of all that was known of its scope and wakes the owners of what vanished; a
watch continues from its version. Every ten minutes a full list follows, whatever the watch said:
a lost event is repaired then at the latest.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

from chatbot_core import names
from chatbot_core.errors import ChatbotError, Denied, NotFound, Unavailable
from chatbot_core.reasons import ConditionType
from chatbot_core.retry import Backoff, Clockwork
from chatbot_operator import entries
from chatbot_operator.facts import RuntimeFacts, SecretFacts, SecretKey
from chatbot_operator.heartbeats import Echo, Heartbeats
from chatbot_operator.kinds import Object, Ref, version_of
from chatbot_operator.kube import Kube, WatchEvent, WatchExpiredError
from chatbot_operator.model import Autoscaler, Child, Owner
from chatbot_operator.runtime_client import RuntimeClient
from chatbot_operator.store import Entry, OwnerKey, Store

V = TypeVar("V")

RELIST_S: Final = 600.0
#: A kind that a server does not know may come with a definition that is installed later.
ABSENT_S: Final = 30.0
#: kopf watches the objects; a list beside it is also the proof that the API server answers.
OWNER_LIST_S: Final = 60.0
#: What a list shows, kopf must have told so much later.
ECHO_S: Final = 10.0
CHILD_SELECTOR: Final = f"{names.LABEL_MANAGED_BY}={names.MANAGER}"
#: Pods carry what their tier's selector asks for; other labels are not promised.
POD_SELECTOR: Final = f"{names.LABEL_NAME}={names.APP_NAME}"
SECRET_AWAITED_S: Final = 10.0
SECRET_CALM_S: Final = 60.0
STATUS_BUSY_S: Final = 5.0
STATUS_CALM_S: Final = 60.0
_RETRY: Final = Backoff(base_s=0.2, max_s=10.0)

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Feed(Generic[V]):
    """One kind in one namespace ("" = all), into one store."""

    kind: str
    namespace: str
    selector: str
    store: Store[Ref, V]
    parse: Callable[[Object], V]
    owner_of: Callable[[Object], OwnerKey | None] = entries.owner_of
    optional: bool = False

    @property
    def scope(self) -> str:
        """Return the feed's name: what one list replaces."""
        return scope(self.kind, self.namespace)


def scope(kind: str, namespace: str) -> str:
    """Return the name of a kind's scope in a namespace ("" = all)."""
    return f"{kind}@{namespace}"


async def list_watch(
    kube: Kube, feed: Feed[V], heartbeats: Heartbeats, clockwork: Clockwork
) -> None:
    """Keep a store level with the API server until cancelled.

    A lost connection continues from the last version; a version that the server has forgotten
    (410) lists again.
    """
    heartbeats.beat(feed.scope)
    tries = 0
    while True:
        try:
            version = await list_once(kube, feed)
            heartbeats.beat(feed.scope)
            relist_s = clockwork.now_s() + RELIST_S * (0.9 + 0.2 * clockwork.random())
            tries = 0
            while clockwork.now_s() < relist_s:
                version = await _follow(kube, feed, version, heartbeats, clockwork)
        except WatchExpiredError:
            _log.info("watch expired", extra={"scope": feed.scope})
        except ChatbotError as error:
            if feed.optional and isinstance(error, NotFound | Denied):
                await _absent(feed, heartbeats, clockwork, str(error))
                continue
            if isinstance(error, Denied):
                heartbeats.answered(feed.scope)
            _log.warning("list failed", extra={"scope": feed.scope, "error": str(error)})
            await clockwork.sleep(_RETRY.wait_s(tries, clockwork.random()))
            tries += 1


async def _absent(feed: Feed[V], heartbeats: Heartbeats, clockwork: Clockwork, why: str) -> None:
    """Take it that there is nothing of a kind, and wait until it is worth asking again."""
    _log.debug("kind not readable", extra={"scope": feed.scope, "error": why})
    feed.store.replace(feed.scope, {}, 0)
    heartbeats.beat(feed.scope)
    await clockwork.sleep(ABSENT_S * (0.9 + 0.2 * clockwork.random()))


async def list_again(
    kube: Kube, feed: Feed[V], heartbeats: Heartbeats, echo: Echo, clockwork: Clockwork
) -> None:
    """List a feed that somebody else watches (kopf), at start and about every minute.

    kopf forgets nothing that was deleted while it could not watch, and a watch of kopf's that was
    refused ends without a word; a list tells both.
    """
    heartbeats.beat(feed.scope)
    while True:
        wait_s = OWNER_LIST_S * (0.9 + 0.2 * clockwork.random())
        try:
            await list_once(kube, feed)
            heartbeats.beat(feed.scope)
            if not echo.listed(feed.scope, feed.store.versions(feed.scope)):
                wait_s = ECHO_S
        except (ChatbotError, WatchExpiredError) as error:
            echo.failed(feed.scope)
            if isinstance(error, Denied):
                heartbeats.answered(feed.scope)
            _log.warning("list failed", extra={"scope": feed.scope, "error": str(error)})
            wait_s = _RETRY.wait_s(5, clockwork.random())
        await clockwork.sleep(wait_s)


async def list_once(kube: Kube, feed: Feed[V]) -> str:
    """Take one complete list into the store; return its version.

    Raises Unavailable, Denied, and WatchExpiredError where it took too long. Page by page only
    what is kept of the objects stays in memory.
    """
    listed: dict[Ref, Entry[V]] = {}
    version = ""
    feed.store.listing(feed.scope)
    async for page in kube.pages(feed.kind, feed.namespace, feed.selector):
        version = page.resource_version
        for obj in page.items:
            entry = _entry(feed, obj)
            if entry is not None:
                listed[_ref(feed, obj)] = entry
    feed.store.replace(feed.scope, listed, int(version))
    return version


async def _follow(
    kube: Kube, feed: Feed[V], version: str, heartbeats: Heartbeats, clockwork: Clockwork
) -> str:
    """Read one watch to its end and return the last version that it named."""
    try:
        async for event in kube.watch(feed.kind, feed.namespace, feed.selector, version):
            version = version_of(event.object)
            heartbeats.beat(feed.scope)
            _take(feed, event, int(version))
        heartbeats.beat(feed.scope)
    except Unavailable as error:
        _log.info("watch interrupted", extra={"scope": feed.scope, "error": str(error)})
        await clockwork.sleep(_RETRY.wait_s(2, clockwork.random()))
    return version


def _take(feed: Feed[V], event: WatchEvent, version: int) -> None:
    if event.type == "BOOKMARK":
        return
    obj = {**event.object, "kind": feed.kind}
    ref = _ref(feed, obj)
    entry = None if event.type == "DELETED" else _entry(feed, obj)
    if entry is None:
        feed.store.vanished(ref, version)
    else:
        feed.store.seen(feed.scope, ref, entry)


def _ref(feed: Feed[V], obj: Object) -> Ref:
    return Ref(feed.kind, str(obj["metadata"]["namespace"]), str(obj["metadata"]["name"]))


def _entry(feed: Feed[V], obj: Object) -> Entry[V] | None:
    owner = feed.owner_of(obj)
    return None if owner is None else Entry(feed.parse(obj), owner, int(version_of(obj)))


@dataclass(frozen=True, slots=True)
class SecretPoll:
    """Reads the wanted Secrets by name."""

    kube: Kube
    facts: SecretFacts
    now_s: Callable[[], float]

    async def fetch(self, key: SecretKey) -> float:
        """Read one Secret; return in how many seconds to read it again."""
        owner, name = key
        wanted = {item.name: item for item in self.facts.wanted(owner)}
        if name not in wanted:
            return SECRET_CALM_S
        try:
            obj = await self.kube.get(Ref("Secret", owner[0], name))
        except ChatbotError as error:
            _log.warning(
                "secret not readable",
                extra={"namespace": owner[0], "secret": name, "error": str(error)},
            )
            return SECRET_AWAITED_S
        self.facts.read(key, obj, self.now_s())
        return SECRET_AWAITED_S if wanted[name].awaited or obj is None else SECRET_CALM_S


@dataclass(frozen=True, slots=True)
class StatusPoll:
    """Reads RuntimeStatus from any ready API pod, often while something moves."""

    client: RuntimeClient
    facts: RuntimeFacts
    secrets: SecretFacts
    pods: Callable[[OwnerKey], Mapping[Ref, entries.PodEntry]]
    owner: Callable[[OwnerKey], Owner | None]
    now_s: Callable[[], float]

    async def fetch(self, key: OwnerKey) -> float:
        """Ask one object's runtime; return in how many seconds to ask again."""
        token = self.secrets.token(key)
        addresses = _ready_api_addresses(self.pods(key))
        for address in addresses if token else ():
            try:
                news = await self._ask(key, address, token)
            except Unavailable as error:
                _log.debug("runtime silent", extra={"cluster": key[1], "error": str(error)})
                continue
            calm = not news and is_ready(self.owner(key))
            return STATUS_CALM_S if calm else STATUS_BUSY_S
        self.facts.failed(key)
        return STATUS_BUSY_S

    async def _ask(self, key: OwnerKey, address: str, token: str) -> bool:
        last = self.facts.fact(key)
        tagged_at, tag = self.facts.tag(key)
        usable = last.value is not None and tagged_at == address
        answer = await self.client.status(address, token, tag if usable else "")
        status = answer.status or last.value
        if status is None:
            raise Unavailable("runtime", "it answered 304 to a first question")
        self.facts.tagged(key, address, answer.etag)
        return self.facts.answered(key, status, self.now_s())


def is_ready(owner: Owner | None) -> bool:
    """Whether the object's own status says Ready."""
    conditions = () if owner is None else owner.status.get("conditions") or ()
    return any(c["type"] == ConditionType.READY and c["status"] == "True" for c in conditions)


def _ready_api_addresses(pods: Mapping[Ref, entries.PodEntry]) -> tuple[str, ...]:
    ready = [
        (ref.name, entry.address)
        for ref, entry in pods.items()
        if entry.pod.component == names.Component.API
        and entry.pod.ready
        and not entry.pod.deleting
        and entry.address
    ]
    return tuple(address for _, address in sorted(ready))


def child_feed(kind: str, namespace: str, store: Store[Ref, Child]) -> Feed[Child]:
    """Return the feed of a kind of children."""
    return Feed(kind, namespace, CHILD_SELECTOR, store, entries.child)


def pod_feed(namespace: str, store: Store[Ref, entries.PodEntry]) -> Feed[entries.PodEntry]:
    """Return the feed of our pods."""
    return Feed("Pod", namespace, POD_SELECTOR, store, entries.pod)


def autoscaler_feed(kind: str, namespace: str, store: Store[Ref, Autoscaler]) -> Feed[Autoscaler]:
    """Return the feed of a kind that scales workloads, where the server knows it."""
    return Feed(kind, namespace, "", store, entries.autoscaler, entries.target_of, optional=True)


def owner_feed(
    namespace: str,
    store: Store[Ref, Owner],
    owner_of: Callable[[Object], OwnerKey | None] = entries.own_key,
) -> Feed[Owner]:
    """Return the feed of the ChatbotClusters themselves; `owner_of` is None for another's."""
    return Feed(names.KIND, namespace, "", store, entries.owner, owner_of)
