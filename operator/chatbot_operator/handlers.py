"""The only file that imports kopf: it logs in, watches ChatbotClusters and fills their store.

Only `on.event` is registered: kopf then writes no annotation, no finalizer and no status, and
what a handler does is one call that cannot fail. Retries live in the work queue.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import signal
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import kopf

from chatbot_core import names
from chatbot_operator import entries
from chatbot_operator.heartbeats import Echo
from chatbot_operator.kinds import Ref, version_of
from chatbot_operator.observe import World
from chatbot_operator.store import Entry

_log = logging.getLogger(__name__)
#: When credentials are read again, unless the API server has refused them before.
CREDENTIALS_S: Final = 86400.0
#: Before every login but the first, so that credentials refused for good do not spin.
LOGIN_PAUSE_S: Final = 1.0


def as_new(found: kopf.ConnectionInfo) -> kopf.ConnectionInfo:
    """Return the same credentials with another time of expiry.

    An API server in trouble refuses good ones (401); kopf never takes equal ones again, and ends.
    """
    return replace(found, expiration=datetime.now(UTC) + timedelta(seconds=CREDENTIALS_S))


def registry(world: World, echo: Echo) -> kopf.OperatorRegistry:
    """Return the handlers, bound to the store that they fill."""
    handlers = kopf.OperatorRegistry()

    @kopf.on.startup(registry=handlers)
    async def configure(settings: kopf.OperatorSettings, **_: Any) -> None:
        settings.posting.enabled = False
        settings.scanning.disabled = True
        settings.watching.server_timeout = 120
        settings.watching.client_timeout = 150
        settings.watching.connect_timeout = 10
        settings.networking.connect_timeout = 10
        settings.networking.request_timeout = 30

    pauses_s = itertools.chain([0.0], itertools.repeat(LOGIN_PAUSE_S))

    @kopf.on.login(registry=handlers)
    async def login(**kwargs: Any) -> kopf.ConnectionInfo | None:
        await asyncio.sleep(next(pauses_s))
        found = kopf.login_with_service_account(**kwargs) or kopf.login_with_kubeconfig(**kwargs)
        return as_new(found) if found else None

    @kopf.on.event(names.GROUP, names.VERSION, names.PLURAL, registry=handlers)
    async def changed(event: kopf.RawEvent, **_: Any) -> None:
        obj = dict(event["object"])
        ref = Ref(names.KIND, *entries.own_key(obj))
        version = int(version_of(obj))
        own = world.own_key(obj)
        if event["type"] == "DELETED" or own is None:
            # Handed over to another operator: forgotten as if it were gone, its children kept.
            echo.gone(ref)
            world.owners.vanished(ref, version)
        else:
            entry = Entry(entries.owner(obj), own, version)
            world.owners.seen(world.scope_of(ref), ref, entry)
            echo.told(ref, version)

    return handlers


async def watch_objects(world: World, echo: Echo, stop: asyncio.Event) -> None:
    """Run kopf until `stop` is set, by SIGTERM and SIGINT too; start it anew when it is dead.

    A watch of kopf's that the API server refuses ends, and kopf goes on without it.
    """
    while not stop.is_set():
        echo.begin()
        await _watch(world, echo, stop)
        if not echo.dead.is_set():
            stop.set()
        else:
            _log.warning("watch started anew", extra={"kind": names.KIND})


async def _watch(world: World, echo: Echo, stop: asyncio.Event) -> None:
    everywhere = world.namespaces == ("",)
    ready, ended = asyncio.Event(), asyncio.Event()
    async with asyncio.TaskGroup() as group:
        beside = [
            group.create_task(_take_signals(ready, stop)),
            group.create_task(_set_after(stop, ended)),
            group.create_task(_set_after(echo.dead, ended)),
        ]
        await kopf.operator(
            registry=registry(world, echo),
            standalone=True,
            clusterwide=everywhere,
            namespaces=() if everywhere else world.namespaces,
            stop_flag=ended,
            ready_flag=ready,
        )
        for task in beside:
            task.cancel()


async def _set_after(first: asyncio.Event, then: asyncio.Event) -> None:
    await first.wait()
    then.set()


async def _take_signals(ready: asyncio.Event, stop: asyncio.Event) -> None:
    """Take the signals back: kopf takes them for itself when it starts, and ends slowly."""
    await ready.wait()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
