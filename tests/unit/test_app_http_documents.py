"""Documents, mistakes and the OpenAI API, over the real services."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator

import httpx
import pytest
from fakes.http_service import LAMP, Client, Service, events_of, logged_in

from chatbot_core.errors import Busy, Unavailable
from chatbot_runtime.domain.model import Message
from chatbot_runtime.services.questions import Question


@pytest.fixture
async def client() -> AsyncIterator[Client]:
    async with logged_in(Service()) as one:
        yield one


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


async def test_an_idempotency_key_repeats_its_upload_and_nothing_else(client: Client) -> None:
    async def send(text: str, key: str) -> httpx.Response:
        return await client.http.post(
            "/api/documents",
            params={"name": "a.txt"},
            content=text.encode(),
            headers={"Idempotency-Key": key},
        )

    first, again = await send(LAMP, "k1"), await send(LAMP, "k1")
    other, too_long = await send("Another text.", "k1"), await send(LAMP, "k" * 256)

    assert (first.status_code, again.status_code) == (202, 200)
    assert again.json() == first.json()
    assert (other.status_code, other.json()["field"]) == (422, "Idempotency-Key")
    assert other.headers["content-type"] == "application/problem+json"
    assert (too_long.status_code, too_long.json()["field"]) == (422, "idempotency-key")
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


async def test_what_the_routes_do_not_know_is_a_problem_document(client: Client) -> None:
    nowhere = await client.http.get("/api/nowhere")
    wrong = await client.http.put("/api/documents", content=b"x")

    assert [(r.status_code, r.headers["content-type"]) for r in (nowhere, wrong)] == [
        (404, "application/problem+json"),
        (405, "application/problem+json"),
    ]
    assert wrong.headers["allow"]


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
