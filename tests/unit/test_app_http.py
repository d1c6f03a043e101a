"""The HTTP APIs over the real services; only the outside worlds are in memory."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from fakes.http_service import LAMP, PASSWORD, Client, Service, events_of, logged_in

from chatbot_core.errors import Busy, Unavailable
from chatbot_core.runtime_config import Retrieval
from chatbot_runtime.domain.model import User
from chatbot_runtime.services.accounts import HASHER


@pytest.fixture
async def client() -> AsyncIterator[Client]:
    async with logged_in(Service()) as one:
        yield one


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
