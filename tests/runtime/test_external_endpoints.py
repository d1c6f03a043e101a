"""Proxies before endpoints that are not ours: real processes, a real database, TLS and a token."""

from __future__ import annotations

import asyncio
import contextlib
import random
import signal
import sys
from asyncio.subprocess import Process
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from fakes.application import WordEmbedder
from fakes.ollama import MODEL, FakeOllama
from fakes.tls import make_certificate, server_side, tls_door

from chatbot_core import names
from chatbot_core.retry import Deadline
from chatbot_core.runtime_config import Boot, InferenceProxyBoot, Live, RuntimeConfig
from chatbot_runtime.adapters.postgres.documents import PostgresDocuments
from chatbot_runtime.adapters.postgres.events import PostgresEventLog
from chatbot_runtime.adapters.postgres.members import PostgresMembers
from chatbot_runtime.adapters.postgres.pool import Database
from chatbot_runtime.adapters.postgres.settings import PostgresSettings
from chatbot_runtime.adapters.proxy_client import InferenceProxies
from chatbot_runtime.clock import SystemClock
from chatbot_runtime.domain.model import AnswerEnd, GenerationOptions, MemberRow, Message, Token
from chatbot_runtime.services.health import Health, HealthPorts
from chatbot_runtime.services.windows import Windows

CLOCK = SystemClock()
TEXT = "The valve opens at 7 bar."
QUESTION = [Message("user", "When does it open?")]
OPTIONS = GenerationOptions(MODEL, 16, 0, 7, 4096)
INTERNAL = "internal-token"


@dataclass
class Cluster:
    """What the proxies of one object share: the document, the database, who is alive."""

    folder: Path
    dsn: str
    members: PostgresMembers
    model: InferenceProxies
    health: Health

    @property
    def config(self) -> Path:
        return self.folder / "runtime.json"

    def write_config(self, **urls: str) -> None:
        sections = [
            InferenceProxyBoot(
                endpoint=name, ollama_url=url, model=MODEL, port=0, internal_port=0, drain_s=5
            )
            for name, url in urls.items()
        ]
        boot = Boot(endpoints=tuple(sections))
        self.config.write_text(RuntimeConfig(cluster="docs", boot=boot).to_json())

    def put_secret(self, endpoint: str, file: str, value: str) -> None:
        path = self.folder / endpoint / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(value)

    @contextlib.asynccontextmanager
    async def proxy(self, endpoint: str) -> AsyncIterator[Process]:
        """Run the proxy before one endpoint; at the end it is told to stop and must end well."""
        self.put_secret(endpoint, names.FILE_DSN, self.dsn)
        self.put_secret(endpoint, names.FILE_INTERNAL_TOKEN, INTERNAL)
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "chatbot_runtime", "inference-proxy"),
            *("--endpoint", endpoint, "--config", str(self.config)),
            *("--secrets", str(self.folder / endpoint)),
            env={names.ENV_POD_NAME: f"docs-inference-{endpoint}"},
        )
        try:
            yield process
            if process.returncode is None:
                process.send_signal(signal.SIGTERM)
            assert await asyncio.wait_for(process.wait(), 10) == 0
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()

    async def row(self, endpoint: str) -> MemberRow | None:
        rows = await self.members.live(10)
        return next((one for one in rows if one.name == f"docs-inference-{endpoint}"), None)

    async def until(self, endpoint: str, *, ready: bool, reason: str = "") -> MemberRow:
        """Wait until a proxy says that it is ready, or that it is not for this reason."""
        row = None
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(15):
                while True:
                    row = await self.row(endpoint)
                    if row is not None and row.ready is ready and reason in row.reason:
                        return row
                    await asyncio.sleep(0.05)
        raise AssertionError(f"{endpoint} stayed {row and (row.ready, row.reason)}")

    def answer(self) -> AsyncIterator[Token | AnswerEnd]:
        deadline = Deadline.after(CLOCK.monotonic_s(), 10)
        return self.model.stream(QUESTION, OPTIONS, deadline)

    async def ask(self) -> str:
        return "".join([item.text async for item in self.answer() if isinstance(item, Token)])

    async def instances(self) -> dict[str, Any]:
        detail = await self.health.detail()
        component = detail["components"]["ollama"]
        return {"status": component["status"]} | {
            one["endpoint"]: (one["status"], one["reason"])
            for one in component.get("instances", ())
        }


@contextlib.asynccontextmanager
async def cluster(dsn: str, folder: Path) -> AsyncIterator[Cluster]:
    database = Database(lambda _name: dsn)
    members = PostgresMembers(database)
    model = InferenceProxies(members, lambda: INTERNAL, CLOCK, random.Random(1).sample)
    ports = HealthPorts(
        documents=PostgresDocuments(database),
        log=PostgresEventLog(database),
        members=members,
        settings=PostgresSettings(database),
        model=model,
        embedder=WordEmbedder(),
    )
    health = Health(ports, Windows(random.Random(1).random), CLOCK, Live)
    try:
        yield Cluster(folder, dsn, members, model, health)
    finally:
        await model.close()
        await database.close()


async def test_one_dead_endpoint_leads_to_the_others(dsn: str, tmp_path: Path) -> None:
    west, east = FakeOllama(), FakeOllama()
    async with cluster(dsn, tmp_path) as docs, contextlib.AsyncExitStack() as stack:
        ends = await stack.enter_async_context(contextlib.AsyncExitStack())
        west_url = await ends.enter_async_context(west.serving())
        docs.write_config(west=west_url, east=await stack.enter_async_context(east.serving()))
        for name in ("west", "east"):
            await stack.enter_async_context(docs.proxy(name))
            await docs.until(name, ready=True)
        assert [await docs.ask() for _ in range(12)] == [TEXT] * 12
        assert west.chats
        assert east.chats
        assert await docs.instances() == {"status": "ok", "west": ("ok", ""), "east": ("ok", "")}
        await ends.aclose()
        # At once: no heartbeat has told anybody yet.
        assert [await docs.ask() for _ in range(12)] == [TEXT] * 12
        await docs.until("west", ready=False, reason="ConnectError")
        assert await docs.instances() == {
            "status": "ok",
            "west": ("error", "Ollama is unavailable: ConnectError"),
            "east": ("ok", ""),
        }
        await stack.enter_async_context(west.serving(int(west_url.rsplit(":", 1)[1])))
        await docs.until("west", ready=True)


async def test_an_endpoint_without_the_model_says_what_to_run_and_gets_nothing_pulled(
    dsn: str, tmp_path: Path
) -> None:
    theirs = FakeOllama(models=set())
    async with cluster(dsn, tmp_path) as docs, theirs.serving() as url:
        docs.write_config(gpu=url)
        async with docs.proxy("gpu"):
            row = await docs.until("gpu", ready=False, reason="does not hold")
            assert row.reason == (
                "the endpoint does not hold smollm2:135m: run `ollama pull smollm2:135m` there; "
                "we pull nothing at a server that is not ours"
            )
            theirs.models.add(MODEL)
            await docs.until("gpu", ready=True)
            assert await docs.ask() == TEXT
    assert (theirs.pulls, len(theirs.chats)) == (0, 1), "no pull, no warm-up: one question"
    assert "keep_alive" not in theirs.chats[0]
    assert theirs.chats[0]["options"]["num_ctx"] == 4096


async def test_token_and_authority_are_rotated_without_a_restart(dsn: str, tmp_path: Path) -> None:
    old_ca, new_ca = make_certificate(tmp_path, "old"), make_certificate(tmp_path, "new")
    theirs = FakeOllama(token="first")
    async with (
        cluster(dsn, tmp_path) as docs,
        theirs.serving() as plain,
        contextlib.AsyncExitStack() as stack,
    ):
        door = await stack.enter_async_context(contextlib.AsyncExitStack())
        url = await door.enter_async_context(tls_door(plain, server_side(tmp_path, "old")))
        docs.write_config(gpu=url)
        docs.put_secret("gpu", names.FILE_ENDPOINT_TOKEN, "first\n")
        docs.put_secret("gpu", names.FILE_ENDPOINT_CA, old_ca.read_text())
        process = await stack.enter_async_context(docs.proxy("gpu"))
        await docs.until("gpu", ready=True)

        theirs.token = "second"
        await docs.until("gpu", ready=False, reason="check tokenSecretRef")
        docs.put_secret("gpu", names.FILE_ENDPOINT_TOKEN, "second\n")
        await docs.until("gpu", ready=True)

        await door.aclose()
        renewed = tls_door(plain, server_side(tmp_path, "new"), urlsplit(url).port or 0)
        await stack.enter_async_context(renewed)
        await docs.until("gpu", ready=False, reason="check caSecretRef")
        docs.put_secret("gpu", names.FILE_ENDPOINT_CA, new_ca.read_text())
        await docs.until("gpu", ready=True)
        assert await docs.ask() == TEXT
        assert process.returncode is None


async def test_a_proxy_that_is_told_to_stop_ends_its_answer_first(dsn: str, tmp_path: Path) -> None:
    theirs = FakeOllama(token_s=0.3)
    async with cluster(dsn, tmp_path) as docs, theirs.serving() as url:
        docs.write_config(gpu=url)
        async with docs.proxy("gpu") as process:
            await docs.until("gpu", ready=True)
            answer = docs.answer()
            assert await anext(answer) == Token(1, "The ")
            process.send_signal(signal.SIGTERM)
            rest = [item.text async for item in answer if isinstance(item, Token)]
            assert await asyncio.wait_for(process.wait(), 10) == 0
    assert "The " + "".join(rest) == TEXT
    assert await docs.row("gpu") is None, "it said good-bye"


async def test_a_name_that_is_no_endpoint_ends_with_2(dsn: str, tmp_path: Path) -> None:
    async with cluster(dsn, tmp_path) as docs:
        docs.write_config(gpu="https://ollama.example.com")
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "chatbot_runtime", "inference-proxy", "--endpoint", "cpu"),
            *("--config", str(docs.config), "--secrets", str(tmp_path)),
            stderr=asyncio.subprocess.PIPE,
        )
        _, said = await process.communicate()
    assert process.returncode == 2
    assert b"endpoint: 'cpu' is not allowed; must be one of boot.endpoints (gpu)" in said
