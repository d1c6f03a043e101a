"""The whole application in one process; only the outside worlds are in memory."""

from __future__ import annotations

import contextlib
import itertools
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import httpx
from fakes.application import ExactShards, MemoryStore, ScriptedModel, WordEmbedder
from fakes.data import FakeDocuments, FakeEventLog, World
from fakes.jobs import FakeJobs
from fakes.people import FakeAccounts, FakeMembers, FakeSettings

from chatbot_core.runtime_config import Inference, Ingest, Live, SelfTest
from chatbot_runtime.domain.model import ParsedText
from chatbot_runtime.routes.app import create_app
from chatbot_runtime.routes.context import ApiServices
from chatbot_runtime.services.accounts import AccountService
from chatbot_runtime.services.documents import DocumentService, Reach
from chatbot_runtime.services.health import Health, HealthPorts
from chatbot_runtime.services.ingest import EraseHandler, IngestHandler
from chatbot_runtime.services.jobs import JobKind, Worker
from chatbot_runtime.services.questions import Questions
from chatbot_runtime.services.selftest import SelfTest as SelfTestService
from chatbot_runtime.services.selftest import SelfTestPorts
from chatbot_runtime.services.stages import Stages
from chatbot_runtime.services.windows import Windows

LAMP = "The return window for the Aurora lamp is 45 days."
PASSWORD = "correct horse battery"


class PlainParser:
    """The port `Parser` for what is text already."""

    async def parse(self, content: bytes) -> ParsedText:
        return ParsedText(content.decode())


@dataclass
class Service:
    """The whole application in one process."""

    world: World = field(default_factory=World)
    model: ScriptedModel = field(default_factory=ScriptedModel)
    store: MemoryStore = field(default_factory=MemoryStore)
    live: Live = field(
        default_factory=lambda: Live(
            ingest=Ingest(max_document_size_bytes=1_000_000),
            inference=Inference(model="scripted", max_output_tokens=64),
            self_test=SelfTest(wanted="w1"),
        )
    )

    def __post_init__(self) -> None:
        clock, numbers = self.world.clock, itertools.count()
        self.shards = ExactShards(self.world)
        self.documents = FakeDocuments(self.world)
        self.log = FakeEventLog(self.world)
        self.jobs = FakeJobs(self.world)
        self.settings = FakeSettings()
        embedder = WordEmbedder()
        windows = Windows(lambda: 0.5)
        stages = Stages(clock, windows)
        current = lambda: self.live  # noqa: E731 - read at each call, as the config file is
        random_id = lambda: f"id{next(numbers):04}"  # noqa: E731 - shorter than a function
        self.people = FakeAccounts()
        self.accounts = AccountService(self.people, clock, random_id)
        members = FakeMembers(clock)
        ports = HealthPorts(self.documents, self.log, members, self.settings, self.model, embedder)
        health = Health(ports, windows, clock, current)
        self.questions = questions = Questions(
            self.documents, self.log, self.shards, embedder, self.model, stages, current,
            lambda content: "nonce",
        )  # fmt: skip
        stores = {"main": self.store}
        reach = Reach(self.log, self.shards, clock)
        documents = DocumentService(self.documents, stores, reach, clock, current, random_id)
        self.self_test = SelfTestService(
            SelfTestPorts(
                questions, documents, health, self.log, self.jobs, self.settings, self.model,
                current,
            )
        )  # fmt: skip
        self.health = health
        ingest = IngestHandler(
            self.documents, self.log, stores, PlainParser(), embedder, stages, current
        )
        handlers = {JobKind.INGEST: ingest, JobKind.ERASE: EraseHandler(stores)}
        self.worker = Worker(self.jobs, handlers, lambda: 0.5)
        self.app = create_app(
            ApiServices(
                self.accounts, documents, questions, health, embedder, self.model, clock, current
            )
        )

    async def work(self) -> None:
        while await self.worker.step():
            pass


@dataclass
class Client:
    """An HTTP client that is logged in."""

    service: Service
    http: httpx.AsyncClient

    async def upload(self, name: str, text: str) -> str:
        reply = await self.http.post("/api/documents", params={"name": name}, content=text.encode())
        assert reply.status_code == 202, reply.text
        await self.service.work()
        return str(reply.json()["id"])

    async def ask(self, question: str, **more: Any) -> httpx.Response:
        return await self.http.post("/api/chat", json={"question": question, **more})


@contextlib.asynccontextmanager
async def logged_in(service: Service, username: str = "admin") -> AsyncIterator[Client]:
    await service.accounts.ensure_admin("admin", PASSWORD)
    transport = httpx.ASGITransport(service.app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://t") as http:
        reply = await http.post(
            "/api/auth/login", json={"username": username, "password": PASSWORD}
        )
        http.headers["Authorization"] = f"Bearer {reply.json()['token']}"
        yield Client(service, http)


def events_of(text: str) -> list[tuple[str, str | None, dict[str, Any]]]:
    """Return (event, id, data) of each server-sent event."""
    found = []
    for block in text.strip().split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.split("\n"))
        found.append((fields["event"], fields.get("id"), json.loads(fields["data"])))
    return found
