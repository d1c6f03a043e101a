"""What the service knows about itself: components, readiness, the status the operator reads."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

from pydantic import ValidationError

from chatbot_core import runtime_config
from chatbot_core.errors import ChatbotError, Unavailable
from chatbot_core.names import Role
from chatbot_core.runtime_config import Live, ModelStatus, RuntimeStatus, SelfTestResult
from chatbot_runtime.domain.model import MemberRow, SlotMap
from chatbot_runtime.ports import Clock, Documents, Embedder, EventLog, LanguageModel, Members
from chatbot_runtime.ports import Settings as StoredSettings
from chatbot_runtime.services.windows import Summary, Windows

log = logging.getLogger(__name__)

CHECK_TIMEOUT_S: Final = 2.0
#: Heartbeats come every 2 s; a process silent this long is not there.
MEMBER_AGE_S: Final = 10.0
SELF_TEST_KEY: Final = "self_test"
SCHEMA_KEY: Final = "schema_version"
#: The first release of the runtime that holds each version of the schema.
FIRST_RELEASE: Final[Mapping[object, str]] = {1: "0.1.0"}
_READINESS_S: Final = 1.0


@dataclass(frozen=True, slots=True)
class HealthPorts:
    """The outside worlds that health asks."""

    documents: Documents
    log: EventLog
    members: Members
    settings: StoredSettings
    model: LanguageModel
    embedder: Embedder


@dataclass(frozen=True, slots=True)
class Health:
    """Answers `/health/detail` and `/internal/status`."""

    ports: HealthPorts
    windows: Windows
    clock: Clock
    live: Callable[[], Live]

    async def detail(self, name: str = "") -> dict[str, Any]:
        """Return components and the durations of the last 15 minutes, `name` for one of them."""
        checks = {"database": self._database, "ollama": self._ollama, "shards": self._shards}
        results = await asyncio.gather(*(self._checked(check) for check in checks.values()))
        components = dict(zip(checks, results, strict=True))
        if self.live().answer_mode == "Extract":
            components.pop("ollama")
        summaries = self.windows.summaries(self.clock.monotonic_s())
        shown = {k: asdict(v) for k, v in summaries.items() if not name or k == name}
        worst = all(component["status"] == "ok" for component in components.values())
        return {
            "status": "ok" if worst else "degraded",
            "components": components,
            "metrics": shown,
        }

    def clear(self) -> None:
        """Forget the durations."""
        self.windows.clear()

    def summary(self, name: str) -> Summary | None:
        """Return one window's summary."""
        return self.windows.summary(name, self.clock.monotonic_s())

    async def status(self) -> RuntimeStatus:
        """Return what this process knows about the whole cluster; never raises Unavailable."""
        try:
            async with asyncio.timeout(CHECK_TIMEOUT_S):
                return await self._status()
        except (Unavailable, TimeoutError) as error:
            unmigrated = "not migrated" in str(error)
            return RuntimeStatus(database="unmigrated" if unmigrated else "unavailable")

    async def self_test(self) -> SelfTestResult:
        """Return the last stored result of the self-test."""
        stored = await self.ports.settings.read(SELF_TEST_KEY)
        try:
            return SelfTestResult.model_validate(stored or {})
        except ValidationError:
            return SelfTestResult()

    async def _status(self) -> RuntimeStatus:
        schema = await stored_schema(self.ports.settings)
        if schema.version == 0:
            return RuntimeStatus(database="unmigrated")
        members = await self.ports.members.live(MEMBER_AGE_S)
        return RuntimeStatus(
            database="ok",
            schema_version=schema.version,
            oldest_version=schema.works_from,
            owned_slots=_owned_slots(await self.ports.log.slot_map()),
            members=tuple(_member(row) for row in members),
            retrieval=await self.ports.documents.counts(),
            model=await self._model(),
            self_test=await self.self_test(),
            stored=await self.ports.documents.stored(),
        )

    async def _model(self) -> ModelStatus:
        try:
            return await self.ports.model.status()
        except ChatbotError:
            return ModelStatus()

    async def _checked(self, check: Callable[[], Awaitable[dict[str, Any]]]) -> dict[str, Any]:
        began_s = self.clock.monotonic_s()
        try:
            async with asyncio.timeout(CHECK_TIMEOUT_S):
                extra = await check()
            status = "ok"
        except TimeoutError:
            status, extra = "error", {"details": f"no answer within {CHECK_TIMEOUT_S:.0f} s"}
        except ChatbotError as error:
            status, extra = "error", {"details": str(error)}
        took_ms = (self.clock.monotonic_s() - began_s) * 1000
        return {"status": status, "responseTime": f"{took_ms:.0f}ms", **extra}

    async def _database(self) -> dict[str, Any]:
        if (await stored_schema(self.ports.settings)).version == 0:
            raise Unavailable("database", "schema not migrated yet")
        return {}

    async def _ollama(self) -> dict[str, Any]:
        rows = await self._role(Role.INFERENCE_PROXY)
        model = await self.ports.model.status()
        if not any(row.ready for row in rows):
            reason = rows[0].reason if rows else "no instance reports"
            raise Unavailable("inference", reason or "no instance is ready")
        return {"models": int(bool(model.name)), "instances": [_instance(row) for row in rows]}

    async def _shards(self) -> dict[str, Any]:
        rows = await self._role(Role.SHARD)
        missing = missing_shards(rows, self.live())
        if missing:
            raise Unavailable("shards", f"not ready: {', '.join(map(str, missing))}")
        return {"ready": len(rows), "instances": [_instance(row) for row in rows]}

    async def _role(self, role: Role) -> list[MemberRow]:
        rows = await self.ports.members.live(MEMBER_AGE_S)
        return [row for row in rows if row.role == role.value]


class CorpusWatch:
    """Looks every second whether the corpus can be worked with.

    Ready from the first moment that it could: later losses answer with a reason instead of
    taking the process out of its Service, since a client learns more from an answer than from a
    refused connection.
    """

    def __init__(self, log: EventLog, embedder: Embedder) -> None:
        self._log = log
        self._embedder = embedder
        self._latched = False
        self.reason = "starting"

    def ready(self) -> tuple[bool, str]:
        """Return whether nothing was missing once, and what is missing now."""
        return self._latched, self.reason

    async def run(self) -> None:
        """Look every second until cancelled."""
        while True:
            await self.look()
            await asyncio.sleep(_READINESS_S)

    async def look(self) -> None:
        """Look once."""
        try:
            async with asyncio.timeout(CHECK_TIMEOUT_S):
                reason = await self.missing()
        except TimeoutError:
            reason = f"database: no answer within {CHECK_TIMEOUT_S:.0f} s"
        except ChatbotError as error:
            reason = str(error)
        if reason != self.reason:
            log.info("readiness changed", extra={"reason": reason or "complete"})
        self.reason = reason
        self._latched = self._latched or not reason

    async def missing(self) -> str:
        """Return the first thing that lacks, empty when nothing does."""
        generation = await self._log.generation()
        same = generation.fingerprint == self._embedder.fingerprint
        return "" if same else "the corpus was embedded by another model"


class Readiness(CorpusWatch):
    """Looks whether questions can be answered: also shards and model."""

    def __init__(self, ports: HealthPorts, live: Callable[[], Live]) -> None:
        super().__init__(ports.log, ports.embedder)
        self._ports = ports
        self._live = live

    async def missing(self) -> str:
        """Return the first thing that lacks, empty when nothing does."""
        if reason := await super().missing():
            return reason
        live = self._live()
        rows = await self._ports.members.live(MEMBER_AGE_S)
        shards = [row for row in rows if row.role == Role.SHARD.value]
        if missing := missing_shards(shards, live):
            return f"shards not ready: {', '.join(map(str, missing))}"
        if live.answer_mode == "Generate":
            proxies = [row for row in rows if row.role == Role.INFERENCE_PROXY.value]
            if not any(row.ready for row in proxies):
                return (proxies[0].reason if proxies else "") or "no inference instance is ready"
        return ""


def missing_shards(rows: list[MemberRow], live: Live) -> list[int]:
    """Return the shard numbers that no ready process serves."""
    ready = {row.shard for row in rows if row.ready}
    return [index for index in range(live.retrieval.shards) if index not in ready]


@dataclass(frozen=True, slots=True)
class StoredSchema:
    """The schema's version, 0 before the first migration, and the first release it works with."""

    version: int
    works_from: str


async def stored_schema(settings: StoredSettings) -> StoredSchema:
    """Return which schema the database holds. Raises Unavailable."""
    stored: Mapping[str, object] = await settings.read(SCHEMA_KEY) or {}
    version = stored.get("version", 0)
    version = version if isinstance(version, int) else 0
    works_from = stored.get("works_from", version)
    return StoredSchema(version, FIRST_RELEASE.get(works_from, ""))


def _owned_slots(slot_map: SlotMap) -> tuple[int, ...]:
    """Return how many slots each shard owns or is to own."""
    owners = [*slot_map.owners, *slot_map.next]
    return tuple(owners.count(shard) for shard in range(max(owners) + 1))


def _member(row: MemberRow) -> runtime_config.Member:
    return runtime_config.Member(
        role=row.role,
        name=row.name,
        config_hash=row.config_hash,
        ready=row.ready,
        reason=row.reason,
        shard=row.shard,
        endpoint=_endpoint(row),
        age_s=round(row.age_s, 3),
    )


def _instance(row: MemberRow) -> dict[str, object]:
    shown: dict[str, object] = {"endpoint": _endpoint(row)} if _endpoint(row) else {}
    status = "ok" if row.ready else "error"
    return {"name": row.name, **shown, "status": status, "reason": row.reason}


def _endpoint(row: MemberRow) -> str:
    return str(row.report.get("endpoint", ""))
