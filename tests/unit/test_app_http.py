"""The HTTP APIs over the real services; only the outside worlds are in memory."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest
from fakes.application import ExactShards, MemoryStore, ScriptedModel, WordEmbedder
from fakes.data import (
    FakeAccounts,
    FakeDocuments,
    FakeEventLog,
    FakeJobs,
    FakeMembers,
    FakeSettings,
    World,
)

from chatbot_core.errors import Busy, Unavailable
from chatbot_core.runtime_config import Inference, Ingest, Live, Retrieval, SelfTest
from chatbot_runtime.domain.model import Message, ParsedText, User
from chatbot_runtime.routes.app import create_app
from chatbot_runtime.routes.context import ApiServices
from chatbot_runtime.services.accounts import HASHER, AccountService
from chatbot_runtime.services.documents import DocumentService, Reach
from chatbot_runtime.services.health import Health, HealthPorts
from chatbot_runtime.services.ingest import EraseHandler, IngestHandler
from chatbot_runtime.services.jobs import JobKind, Worker
from chatbot_runtime.services.questions import Question, Questions
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


@pytest.fixture
async def client() -> AsyncIterator[Client]:
    async with logged_in(Service()) as one:
        yield one


def events_of(text: str) -> list[tuple[str, str | None, dict[str, Any]]]:
    """Return (event, id, data) of each server-sent event."""
    found = []
    for block in text.strip().split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.split("\n"))
        found.append((fields["event"], fields.get("id"), json.loads(fields["data"])))
    return found


async def test_an_uploaded_fact_is_answered_and_cited(client: Client) -> None:
    doc_id = await client.upload("aurora.txt", LAMP)

    reply = await client.ask("How long is the return window for the Aurora lamp?", stream=False)

    assert reply.status_code == 200
    body = reply.json()
    assert set(body.pop("timings")) == {"embed", "search", "wall", "first_token", "answer"}
    assert body == {
        "answer": "45 days.",
        "citations": [
            {
                "n": 1,
                "documentId": doc_id,
                "name": "aurora.txt",
                "page": None,
                "start": 0,
                "end": len(LAMP),
                "text": LAMP,
            }
        ],
        "refused": False,
        "coverage": 1.0,
        "consistency": "",
        "usage": {"answerTokens": 3, "promptTokens": 40, "streamedTokens": 3},
        "model": "scripted",
    }


async def test_the_stream_numbers_tokens_and_ends_with_the_same_answer(client: Client) -> None:
    await client.upload("aurora.txt", LAMP)

    reply = await client.ask("How long is the return window for the Aurora lamp?")

    events = events_of(reply.text)
    assert reply.headers["content-type"].startswith("text/event-stream")
    assert [name for name, _, _ in events] == ["meta", *["token"] * 3, "citation", "done"]
    assert [number for name, number, _ in events if name == "token"] == ["1", "2", "3"]
    text = "".join(data["text"] for name, _, data in events if name == "token")
    done = events[-1][2]
    assert (text, done["citations"]) == (done["answer"], [events[-2][2]])
    assert events[0][2]["candidates"][0] == events[-2][2]


async def test_what_is_not_in_the_documents_is_refused_without_the_model(client: Client) -> None:
    await client.upload("aurora.txt", LAMP)

    reply = await client.ask("Who composed the opera Fidelio?", stream=False)

    body = reply.json()
    assert (body["refused"], body["citations"]) == (True, [])
    assert body["answer"] == "The answer is not in your documents."
    assert client.service.model.prompts == []


async def test_extract_mode_answers_without_a_model(client: Client) -> None:
    client.service.live = client.service.live.model_copy(update={"answer_mode": "Extract"})
    await client.upload("aurora.txt", f"Welcome to our shop. {LAMP}")

    reply = await client.ask("How long is the return window for the Aurora lamp?", stream=False)

    body = reply.json()
    assert (body["answer"], body["model"]) == (f"{LAMP} [1]", "extractive")
    assert LAMP in body["citations"][0]["text"]
    assert client.service.model.prompts == []


async def test_deleted_documents_are_out_of_every_answer(client: Client) -> None:
    doc_id = await client.upload("aurora.txt", LAMP)

    deleted = await client.http.delete(f"/api/documents/{doc_id}")
    await client.service.work()

    assert deleted.json() == {"id": doc_id, "consistency": ""}
    reply = await client.ask("How long is the return window for the Aurora lamp?", stream=False)
    assert reply.json()["refused"] is True
    assert (await client.http.get(f"/api/documents/{doc_id}")).status_code == 404
    assert client.service.store.objects == {}


async def test_a_failure_before_the_first_token_is_a_problem_with_retry_after(
    client: Client,
) -> None:
    await client.upload("aurora.txt", LAMP)
    client.service.model.error = Busy("inference", 7)

    reply = await client.ask("How long is the return window for the Aurora lamp?")

    assert reply.status_code == 503
    assert reply.headers["content-type"] == "application/problem+json"
    assert reply.headers["retry-after"] == "7"


async def test_a_failure_after_the_first_token_is_an_error_event(client: Client) -> None:
    await client.upload("aurora.txt", LAMP)
    client.service.model.error = Unavailable("inference", "gone")
    client.service.model.error_before = 2

    reply = await client.ask("How long is the return window for the Aurora lamp?")

    events = events_of(reply.text)
    assert [name for name, _, _ in events] == ["meta", "token", "error"]
    assert events[-1][2]["status"] == 503


async def test_a_missing_shard_stops_answers_unless_less_coverage_is_allowed(
    client: Client,
) -> None:
    await client.upload("aurora.txt", LAMP)
    question = "How long is the return window for the Aurora lamp?"
    free = 1023 - client.service.world.documents[1].slot
    client.service.shards.missing = frozenset({free})

    refused = await client.ask(question, stream=False)
    retrieval = Retrieval(min_coverage_percent=50)
    client.service.live = client.service.live.model_copy(update={"retrieval": retrieval})
    answered = await client.ask(question, stream=False)

    assert (refused.status_code, refused.headers["retry-after"]) == (503, "2")
    assert answered.json()["coverage"] == 1023 / 1024


async def test_one_workspace_never_sees_another(client: Client) -> None:
    doc_id = await client.upload("aurora.txt", LAMP)
    eve = User("eve", "eve", "elsewhere", False, HASHER.hash(PASSWORD))
    await client.service.people.put_user(eve)

    async with logged_in(client.service, "eve") as stranger:
        statuses = [
            (await stranger.http.request(method, f"/api/documents/{doc_id}{more}")).status_code
            for method, more in [
                ("GET", ""),
                ("GET", "/content"),
                ("GET", "/events"),
                ("DELETE", ""),
            ]
        ]
        listed = (await stranger.http.get("/api/documents")).json()
        asked = await stranger.ask("How long is the return window?", stream=False)
        aimed = await stranger.ask("How long?", stream=False, documentIds=[doc_id])
        found = (await stranger.http.get("/api/search", params={"q": "Aurora"})).json()

    assert statuses == [404] * 4
    assert (listed["items"], found["items"]) == ([], [])
    assert (asked.json()["refused"], aimed.status_code) == (True, 404)


async def test_only_admins_manage_users_and_see_health_details(client: Client) -> None:
    made = await client.http.post("/api/users", json={"username": "max", "password": PASSWORD})
    weak = await client.http.post("/api/users", json={"username": "moe", "password": "short"})

    async with logged_in(client.service, "max") as person:
        refused = [
            (await person.http.get(path)).status_code for path in ("/api/users", "/health/detail")
        ]

    assert (made.status_code, weak.status_code, weak.json()["field"]) == (201, 422, "password")
    assert refused == [403, 403]
    listed = (await client.http.get("/api/users")).json()["items"]
    assert [user["username"] for user in listed] == ["admin", "max"]
    assert set((await client.http.get("/health/detail")).json()) == {
        "status",
        "components",
        "metrics",
    }


async def test_only_some_documents_may_be_asked(client: Client) -> None:
    lamp = await client.upload("aurora.txt", LAMP)
    other = await client.upload("other.txt", "The return window for the Borealis lamp is 9 days.")
    question = "How long is the return window for the Aurora lamp?"

    answered = await client.ask(question, stream=False, documentIds=[other])
    unknown = await client.ask(question, stream=False, documentIds=["nobody"])

    assert {c["documentId"] for c in answered.json()["citations"]} <= {other}
    assert unknown.status_code == 404
    assert lamp != other


async def test_documents_list_content_and_search(client: Client) -> None:
    doc_id = await client.upload("aurora.txt", LAMP)
    await client.upload("shipping.md", "# Shipping\n\nWe ship to Austria.")

    listed = (await client.http.get("/api/documents", params={"limit": 1})).json()
    rest = (
        await client.http.get("/api/documents", params={"cursor": listed["cursor"], "limit": 1})
    ).json()
    content = await client.http.get(f"/api/documents/{doc_id}/content")
    found = (await client.http.get("/api/search", params={"q": "Aurora lamp", "k": 1})).json()

    assert [d["name"] for d in listed["items"]] == ["shipping.md"]
    assert [(d["name"], d["state"], d["mediaType"]) for d in rest["items"]] == [
        ("aurora.txt", "Searchable", "text/plain")
    ]
    assert rest["cursor"] == ""
    assert (content.text, content.headers["x-content-type-options"]) == (LAMP, "nosniff")
    assert [(item["name"], item["text"]) for item in found["items"]] == [("aurora.txt", LAMP)]


async def test_the_same_bytes_are_the_same_document(client: Client) -> None:
    doc_id = await client.upload("aurora.txt", LAMP)

    again = await client.http.post(
        "/api/documents", files={"file": ("copy.txt", LAMP.encode(), "text/plain")}
    )

    assert (again.status_code, again.json()["id"]) == (200, doc_id)
    assert len(client.service.store.objects) == 1


async def test_multipart_uploads_stream_the_first_file(client: Client) -> None:
    big = (LAMP + "\n") * 3000

    reply = await client.http.post(
        "/api/documents",
        data={"note": "ignored by design: no file"},
        files={"file": ("größe.txt", big)},
    )
    await client.service.work()

    shown = (await client.http.get(reply.json()["statusURL"])).json()
    assert (shown["name"], shown["sizeBytes"], shown["state"]) == (
        "größe.txt",
        len(big),
        "Searchable",
    )


async def test_progress_ends_with_searchable(client: Client) -> None:
    reply = await client.http.post("/api/documents?name=a.txt", content=LAMP.encode())
    following = asyncio.create_task(client.http.get(f"{reply.json()['statusURL']}/events"))
    await asyncio.sleep(0.15)
    await client.service.work()

    events = events_of((await following).text)

    assert [data["state"] for _, _, data in events] == ["Queued", "Searchable"]


@pytest.mark.parametrize(
    ("content", "status", "word"),
    [
        (b"x" * 1_100_000, 413, "bytes"),
        (b"PK\x03\x04 zip", 422, "ZIP"),
        (b"", 422, "no bytes"),
    ],
)
async def test_uploads_that_cannot_be_read_leave_nothing(
    client: Client, content: bytes, status: int, word: str
) -> None:
    reply = await client.http.post("/api/documents?name=a.txt", content=content)

    assert (reply.status_code, word in reply.json()["detail"]) == (status, True)
    assert client.service.store.objects == {}


@pytest.mark.parametrize(
    ("body", "status", "field"),
    [
        (b'{"question": ""}', 422, "question"),
        (b'{"question": "  "}', 422, "question"),
        (b'{"question": "hi", "temperature": 1}', 422, "temperature"),
        (json.dumps({"question": "x" * 8001}).encode(), 422, "question"),
        (b'{"question": "\xff"}', 400, "body"),
        (b"{", 400, None),
        (b" " * 70_000, 413, "body"),
    ],
)
async def test_bad_requests_name_the_field(
    client: Client, body: bytes, status: int, field: str | None
) -> None:
    reply = await client.http.post(
        "/api/chat", content=body, headers={"content-type": "application/json"}
    )

    assert reply.headers["content-type"] == "application/problem+json"
    assert (reply.status_code, reply.json().get("field")) == (status, field)


async def test_without_a_session_nothing_is_shown(client: Client) -> None:
    del client.http.headers["Authorization"]

    for method, path in [
        ("GET", "/api/me"),
        ("GET", "/api/documents"),
        ("POST", "/api/chat"),
        ("GET", "/v1/models"),
        ("GET", "/health/detail"),
    ]:
        reply = await client.http.request(method, path, json={"question": "hi"})
        assert (reply.status_code, reply.headers["www-authenticate"]) == (401, "Bearer"), path
    assert (await client.http.get("/health")).json() == {"status": "ok"}
    assert (await client.http.get("/docs")).status_code == 404
    assert (await client.http.get("/openapi.json")).status_code == 200


async def test_logout_ends_the_session(client: Client) -> None:
    assert (await client.http.get("/api/me")).json()["username"] == "admin"

    assert (await client.http.post("/api/auth/logout")).status_code == 204

    assert (await client.http.get("/api/me")).status_code == 401


async def test_wrong_passwords_are_limited_per_username(client: Client) -> None:
    async def attempt(username: str) -> httpx.Response:
        body = {"username": username, "password": "wrong password"}
        return await client.http.post("/api/auth/login", json=body)

    statuses = [(await attempt("admin")).status_code for _ in range(5)]
    limited = await attempt("admin")

    assert statuses == [401] * 5
    assert (limited.status_code, limited.headers["retry-after"]) == (429, "6")
    assert (await attempt("nobody")).status_code == 401


async def test_the_openai_api_answers_with_the_known_shapes(client: Client) -> None:
    await client.upload("aurora.txt", LAMP)
    body = {
        "model": "scripted",
        "messages": [
            {"role": "system", "content": "Be kind."},
            {"role": "user", "content": "How long is the return window for the Aurora lamp?"},
        ],
        "temperature": 0.5,
        "max_tokens": 9,
    }

    whole = (await client.http.post("/v1/chat/completions", json=body)).json()
    stream = await client.http.post(
        "/v1/chat/completions",
        json={**body, "stream": True, "stream_options": {"include_usage": True}},
    )

    assert whole["choices"][0]["message"] == {"role": "assistant", "content": "45 days."}
    assert whole["usage"] == {"prompt_tokens": 40, "completion_tokens": 3, "total_tokens": 43}
    assert whole["citations"][0]["text"] == LAMP
    lines = [line.removeprefix("data: ") for line in stream.text.strip().split("\n\n")]
    chunks = [json.loads(line) for line in lines[:-1]]
    assert lines[-1] == "[DONE]"
    assert "".join(c["choices"][0]["delta"].get("content", "") for c in chunks[:-1]) == "45 days."
    assert chunks[-1]["usage"] == whole["usage"]
    options = client.service.model.options[0]
    assert (options.temperature_percent, options.max_output_tokens) == (50, 9)
    assert Message("system", "Be kind.") in client.service.model.prompts[0]


async def test_the_openai_api_refuses_what_it_would_ignore(client: Client) -> None:
    message = [{"role": "user", "content": "hi"}]

    extra = await client.http.post(
        "/v1/chat/completions", json={"model": "scripted", "messages": message, "tools": []}
    )
    other = await client.http.post(
        "/v1/chat/completions", json={"model": "gpt-4", "messages": message}
    )

    assert (extra.status_code, extra.json()["field"]) == (422, "tools")
    assert (other.status_code, "gpt-4" in other.json()["error"]["message"]) == (404, True)


async def test_embeddings_are_unit_vectors(client: Client) -> None:
    body = {"model": "test-embedder", "input": ["one", "two"]}

    reply = (await client.http.post("/v1/embeddings", json=body)).json()

    vectors = [item["embedding"] for item in reply["data"]]
    assert [len(vector) for vector in vectors] == [384, 384]
    assert all(abs(sum(x * x for x in vector) - 1) < 1e-5 for vector in vectors)


async def test_a_client_that_leaves_stops_the_model(client: Client) -> None:
    await client.upload("aurora.txt", LAMP)
    question = Question("How long is the return window for the Aurora lamp?")
    asked = client.service.questions.ask("default", question)

    await anext(asked)
    await asked.aclose()

    assert client.service.model.closed == 1


async def test_the_self_test_passes_once_for_each_combination(client: Client) -> None:
    service = client.service

    first = await service.self_test.step()
    waiting = await service.health.self_test()
    await service.work()
    service.world.clock.now_s += 10
    second = await service.self_test.step()
    third = await service.self_test.step()

    result = await service.health.self_test()
    assert (first, second, third) == (True, True, False)
    assert (waiting.passed, waiting.consecutive_failures) == (False, 0)
    assert (result.passed, result.wanted, result.model_digest, result.generation) == (
        True,
        "w1",
        "d1",
        1,
    )
    assert (await service.documents.counts()).documents == 0
    owners = (await service.log.slot_map()).owners
    assert {owners[d.slot] for d in service.world.documents.values()} == {0, 1}


async def test_the_self_test_counts_failures_but_not_a_busy_service(client: Client) -> None:
    service = client.service
    await service.self_test.step()
    await service.work()

    async def attempt() -> int:
        service.world.clock.now_s += 10
        await service.self_test.step()
        return (await service.health.self_test()).consecutive_failures

    service.model.error = Unavailable("inference", "gone")
    failures = [await attempt(), await attempt()]
    service.model.error = Busy("inference", 1)
    busy = await attempt()
    service.model.error = None
    passed = await attempt()

    assert (failures, busy, passed) == ([1, 2], 2, 0)
    assert (await service.health.self_test()).passed
