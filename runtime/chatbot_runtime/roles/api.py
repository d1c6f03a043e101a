"""The `api` role: the public port, the internal port, and the self-test, in one process."""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import logging
import random
import secrets
from dataclasses import dataclass
from typing import Final

from chatbot_core import names
from chatbot_runtime.adapters.embedder import MiniLmEmbedder
from chatbot_runtime.adapters.postgres.accounts import PostgresAccounts
from chatbot_runtime.adapters.postgres.documents import PostgresDocuments
from chatbot_runtime.adapters.postgres.events import PostgresEventLog
from chatbot_runtime.adapters.postgres.jobs import PostgresJobs
from chatbot_runtime.adapters.postgres.members import PostgresMembers
from chatbot_runtime.adapters.postgres.pool import Database
from chatbot_runtime.adapters.postgres.settings import PostgresSettings
from chatbot_runtime.adapters.proxy_client import InferenceProxies
from chatbot_runtime.adapters.shard_client import ShardClient
from chatbot_runtime.background import background
from chatbot_runtime.internal_http import serve_internal, serve_on
from chatbot_runtime.roles.database import judged_database
from chatbot_runtime.roles.stores import Blobs, make_stores, start_stores
from chatbot_runtime.routes.app import create_app
from chatbot_runtime.routes.context import ApiServices
from chatbot_runtime.routes.internal import internal_routes
from chatbot_runtime.services.accounts import AccountService
from chatbot_runtime.services.documents import DocumentService, Reach
from chatbot_runtime.services.embedding import QueuedEmbedder
from chatbot_runtime.services.health import Health, HealthPorts, Readiness
from chatbot_runtime.services.members import Heartbeat
from chatbot_runtime.services.questions import Questions
from chatbot_runtime.services.selftest import SelfTest, SelfTestPorts
from chatbot_runtime.services.stages import Stages
from chatbot_runtime.services.windows import Windows
from chatbot_runtime.settings import RuntimeSettings
from chatbot_runtime.sockets import listen

log = logging.getLogger(__name__)

ROLE: Final = names.Role.API
#: Nobody who waits for a page or an answer waits longer for one statement.
_STATEMENT_S: Final = 10.0


@dataclass(frozen=True, slots=True)
class _Adapters:
    """The outside worlds of an API process."""

    settings: RuntimeSettings
    database: Database
    log: PostgresEventLog
    members: PostgresMembers
    shards: ShardClient
    model: InferenceProxies
    embedder: QueuedEmbedder
    stores: dict[str, Blobs]

    @classmethod
    def of(cls, settings: RuntimeSettings) -> _Adapters:
        database = judged_database(settings, statement_timeout_s=_STATEMENT_S)
        events, members = PostgresEventLog(database), PostgresMembers(database)

        def token() -> str:
            return settings.secret(names.FILE_INTERNAL_TOKEN)

        return cls(
            settings=settings,
            database=database,
            log=events,
            members=members,
            shards=ShardClient(events, members, token, settings.clock),
            model=InferenceProxies(members, token, settings.clock, random.SystemRandom().sample),
            embedder=QueuedEmbedder(MiniLmEmbedder(), settings.clock),
            stores=make_stores(settings, settings.boot.api.stores),
        )

    async def close(self) -> None:
        await self.shards.close()
        await self.model.close()
        await self.database.close()


async def run(settings: RuntimeSettings) -> None:
    """Serve until told to stop, then let running answers end within `drain_s`.

    Raises Unavailable where a port is taken, Invalid where the embedder's files are wrong. What
    is away outside makes the process not ready, with a reason.
    """
    boot = settings.boot.api
    adapters = _Adapters.of(settings)
    services, ports = _services(adapters)
    readiness = Readiness(ports, lambda: settings.live)
    self_test = _self_test(adapters, services)

    def ready() -> tuple[bool, str]:
        return (False, "draining") if settings.stopping.is_set() else readiness.ready()

    internal = internal_routes(services.health, lambda: settings.secret(names.FILE_INTERNAL_TOKEN))
    listener = listen(settings.bind_host, boot.port)
    address = f"{settings.address}:{listener.getsockname()[1]}"
    heartbeat = Heartbeat(
        adapters.members, settings, ROLE, address, ready, epoch=lambda: adapters.shards.epoch
    )
    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(adapters.close)
        stack.push_async_callback(heartbeat.leave)
        await stack.enter_async_context(
            serve_internal(boot.internal_port, ready, internal, settings.bind_host)
        )
        await stack.enter_async_context(
            background(
                start_stores(adapters.stores),
                readiness.run(),
                services.accounts.follow_admin_secret(settings.secret),
                self_test.watch(),
                heartbeat.run(),
            )
        )
        await stack.enter_async_context(serve_on(listener, create_app(services), boot.drain_s))
        await settings.stopping.wait()


def _services(adapters: _Adapters) -> tuple[ApiServices, HealthPorts]:
    settings = adapters.settings
    clock, windows = settings.clock, Windows(random.random)
    documents = PostgresDocuments(adapters.database)
    ports = HealthPorts(
        documents=documents,
        log=adapters.log,
        members=adapters.members,
        settings=PostgresSettings(adapters.database),
        model=adapters.model,
        embedder=adapters.embedder,
    )
    services = ApiServices(
        accounts=AccountService(
            PostgresAccounts(adapters.database), clock, lambda: secrets.token_urlsafe(32)
        ),
        documents=DocumentService(
            documents=documents,
            stores=adapters.stores,
            reach=Reach(adapters.log, adapters.shards, clock),
            clock=clock,
            live=lambda: settings.live,
            random_id=lambda: secrets.token_hex(16),
        ),
        questions=_questions(adapters, windows),
        health=Health(ports, windows, clock, lambda: settings.live),
        embedder=adapters.embedder,
        model=adapters.model,
        clock=clock,
        live=lambda: settings.live,
    )
    return services, ports


def _questions(adapters: _Adapters, windows: Windows) -> Questions:
    settings = adapters.settings
    return Questions(
        documents=PostgresDocuments(adapters.database),
        log=adapters.log,
        shards=adapters.shards,
        embedder=adapters.embedder,
        model=adapters.model,
        stages=Stages(settings.clock, windows),
        live=lambda: settings.live,
        nonce=lambda content: _nonce(settings, content),
    )


def _nonce(settings: RuntimeSettings, content: str) -> str:
    """Return six hex digits that only the cluster itself can compute (HMAC, RFC 2104)."""
    key = settings.secret(names.FILE_INTERNAL_TOKEN).encode()
    return hmac.new(key, content.encode(), hashlib.sha256).hexdigest()[:6]


def _self_test(adapters: _Adapters, services: ApiServices) -> SelfTest:
    return SelfTest(
        SelfTestPorts(
            questions=services.questions,
            documents=services.documents,
            health=services.health,
            log=adapters.log,
            jobs=PostgresJobs(adapters.database),
            settings=PostgresSettings(adapters.database),
            model=adapters.model,
            live=services.live,
        )
    )
