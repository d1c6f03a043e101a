"""The inference proxy over HTTP, before an Ollama of fixed timing, seen through its client."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import random
import time
from collections.abc import AsyncIterator, Callable

import httpx
import pytest
from fakes.ollama import DIGEST, MODEL, SIZE_BYTES, FakeOllama

from chatbot_core.errors import Busy, ChatbotError, TooLarge, Unavailable
from chatbot_core.retry import Deadline
from chatbot_core.runtime_config import Inference, InferenceProxyBoot, ModelStatus
from chatbot_runtime.adapters.ollama import Ollama
from chatbot_runtime.adapters.proxy_client import InferenceProxies
from chatbot_runtime.background import background
from chatbot_runtime.clock import SystemClock
from chatbot_runtime.domain import inference_wire as wire
from chatbot_runtime.domain.model import AnswerEnd, GenerationOptions, MemberRow, Message, Token
from chatbot_runtime.internal_http import serve_app
from chatbot_runtime.routes import inference as routes
from chatbot_runtime.services import inference as service
from chatbot_runtime.services.inference import InferenceQueue
from chatbot_runtime.services.model_keeper import ModelKeeper

CLOCK = SystemClock()
OPTIONS = GenerationOptions(MODEL, 16, 0, 7, 4096)
QUESTION = [Message("system", "Answer from the context."), Message("user", "When does it open?")]
TEXT = "The valve opens at 7 bar."
TOKEN = "internal-token"


@dataclasses.dataclass
class Proxy:
    """A running proxy: where it is, and what it counts."""

    address: str
    keeper: ModelKeeper
    inference: InferenceQueue

    def row(self, name: str, slots: int) -> MemberRow:
        report = {
            **self.keeper.state.report(MODEL),
            "queue_depth": self.inference.depth,
            "in_flight": self.inference.running,
            "slots": slots,
        }
        state = self.keeper.state
        return MemberRow(
            "inference-proxy", name, self.address, 0, "", "", 0, state.ready, state.reason,
            report=report,
        )  # fmt: skip


class Rows:
    """The heartbeats, as the database would return them."""

    def __init__(self, read: Callable[[], list[MemberRow]]) -> None:
        self._read = read

    async def live(self, max_age_s: float) -> tuple[MemberRow, ...]:
        return tuple(self._read())


@contextlib.asynccontextmanager
async def proxy(
    url: str, live: Inference | None = None, boot: InferenceProxyBoot | None = None
) -> AsyncIterator[Proxy]:
    boot = boot or InferenceProxyBoot(ollama_url=url, model=MODEL, parallel_requests=1)
    ollama = Ollama(url)
    keeper = ModelKeeper(ollama, boot, CLOCK)
    bounds = live or Inference()
    inference = InferenceQueue(ollama, boot, lambda: bounds, CLOCK, keeper.doubt)
    endpoint = routes.GenerateEndpoint(inference, keeper.ready, lambda: TOKEN)
    try:
        async with (
            background(keeper.keep()),
            serve_app(routes.app(endpoint), "127.0.0.1", 0, drain_s=1) as port,
        ):
            yield Proxy(f"127.0.0.1:{port}", keeper, inference)
    finally:
        await inference.close()
        await ollama.close()


@contextlib.asynccontextmanager
async def client(*proxies: Proxy) -> AsyncIterator[InferenceProxies]:
    members = Rows(lambda: [one.row(f"p{n}", 1) for n, one in enumerate(proxies)])
    one = InferenceProxies(members, lambda: TOKEN, CLOCK, random.Random(1).sample)
    try:
        yield one
    finally:
        await one.close()


async def until(condition: Callable[[], bool], within_s: float = 5.0) -> None:
    ends_s = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < ends_s, "it never came true"
        await asyncio.sleep(0.01)


def ask(
    model: InferenceProxies, within_s: float = 10, options: GenerationOptions = OPTIONS
) -> AsyncIterator[Token | AnswerEnd]:
    return model.stream(QUESTION, options, Deadline.after(CLOCK.monotonic_s(), within_s))


async def text_of(items: AsyncIterator[Token | AnswerEnd]) -> str:
    return "".join([item.text async for item in items if isinstance(item, Token)])


async def test_an_answer_streams_through_numbered_and_ends_with_the_model_s_counts() -> None:
    fake = FakeOllama(first_token_s=0.05, token_s=0.01)
    async with fake.serving() as url, proxy(url) as one, client(one) as model:
        await until(lambda: one.keeper.state.ready)
        *tokens, end = [item async for item in ask(model)]
    assert tokens == [Token(n, text) for n, text in enumerate(fake.answer, start=1)]
    assert isinstance(end, AnswerEnd)
    assert dataclasses.replace(end, first_token_s=0, total_s=0) == AnswerEnd(
        "stop", 8, 5, 0, 0, MODEL
    )
    assert 0.05 <= end.first_token_s < end.total_s
    assert fake.chats[-1] == {
        "model": MODEL,
        "messages": [{"role": one.role, "content": one.content} for one in QUESTION],
        "stream": True,
        "keep_alive": -1,
        "options": {"temperature": 0.0, "num_predict": 16, "seed": 7, "num_ctx": 4096},
    }
    assert fake.loads == 1, "the question must not load the model a second time"


async def test_the_queue_is_bounded_and_a_full_one_says_when_to_come_back() -> None:
    fake = FakeOllama(first_token_s=0.3)
    async with fake.serving() as url, proxy(url, Inference(max_waiting=2)) as one:
        await until(lambda: one.keeper.state.ready)
        async with client(one) as model:
            answers = [asyncio.create_task(text_of(ask(model))) for _ in range(3)]
            await until(lambda: one.inference.depth == 2)
            with pytest.raises(Busy) as refused:
                await text_of(ask(model))
            assert 1 <= refused.value.retry_after_s <= 60
            assert await asyncio.gather(*answers) == [TEXT] * 3
    assert fake.most_inside == 1, "Ollama never saw more than parallelRequests"


async def test_the_refusal_is_503_with_retry_after_on_the_wire() -> None:
    fake = FakeOllama(first_token_s=0.3)
    async with fake.serving() as url, proxy(url, Inference(max_waiting=0)) as one:
        await until(lambda: one.keeper.state.ready)
        async with client(one) as model, httpx.AsyncClient() as http:
            running = asyncio.create_task(text_of(ask(model)))
            await until(lambda: one.inference.running == 1)
            refused = await http.post(
                f"http://{one.address}{wire.GENERATE_PATH}",
                headers={"Authorization": f"Bearer {TOKEN}"},
                content=body(),
            )
            await running
    assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
    assert refused.headers[wire.VERSION_HEADER] == "1"
    assert refused.json()["error"]["kind"] == "busy"


def body(**changes: object) -> str:
    message = wire.WireMessage(role="user", content="When?")
    asked = wire.GenerateRequest(
        messages=(message,), max_output_tokens=4, temperature_percent=0, seed=0, deadline_ms=9_000
    )
    return asked.model_copy(update=changes).model_dump_json()


@pytest.mark.parametrize(
    ("token", "content", "status", "says"),
    [
        ("wrong", body(), 401, "the internal token is missing or wrong"),
        (TOKEN, body(version=2), 422, "version: 2 is not allowed"),
        (TOKEN, body(max_output_tokens=0), 422, "max_output_tokens: 0 is not allowed"),
        (TOKEN, "{", 422, "Invalid JSON"),
        (TOKEN, "x" * (wire.MAX_REQUEST_BYTES + 1), 413, "at most 1048576 bytes"),
    ],
)
async def test_a_request_that_is_not_ours_is_refused_with_its_reason(
    token: str, content: str, status: int, says: str
) -> None:
    fake = FakeOllama()
    async with fake.serving() as url, proxy(url) as one, httpx.AsyncClient() as http:
        await until(lambda: one.keeper.state.ready)
        response = await http.post(
            f"http://{one.address}{wire.GENERATE_PATH}",
            headers={"Authorization": f"Bearer {token}"},
            content=content,
        )
    assert (response.status_code, says in response.json()["error"]["message"]) == (status, True)
    assert [chat["messages"] for chat in fake.chats] == [[]], "only the warm-up reached Ollama"


async def test_a_stop_while_tokens_flow_ends_ollama_and_frees_the_slot(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(service, "RELEASE_S", 0.05)
    fake = FakeOllama(token_s=0.05, answer=("again ",) * 16)
    async with fake.serving() as url, proxy(url) as one, client(one) as model:
        await until(lambda: one.keeper.state.ready)
        answer = ask(model)
        assert await anext(answer) == Token(1, "again ")
        await answer.aclose()  # type: ignore[attr-defined] - it is a generator
        await until(lambda: fake.closed_early == 1, 0.5)
        await until(lambda: one.inference.running == 0, 0.5)


async def test_a_stop_while_the_prompt_is_read_keeps_the_slot_until_ollama_is_free(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(service, "RELEASE_S", 0.1)
    fake = FakeOllama(parallel=2, first_token_s=0.4, token_s=0.02)
    async with fake.serving() as url, proxy(url) as one, client(one) as model:
        await until(lambda: one.keeper.state.ready)
        asking = asyncio.create_task(text_of(ask(model)))
        await until(lambda: fake.inside == 1)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        await asyncio.sleep(0.1)
        assert (fake.inside, one.inference.running) == (1, 1)
        assert await text_of(ask(model)) == TEXT
    assert fake.most_inside == 1
    assert fake.closed_early == 1


async def test_a_waiter_that_leaves_gives_up_its_place() -> None:
    fake = FakeOllama(first_token_s=0.3)
    async with fake.serving() as url, proxy(url) as one, client(one) as model:
        await until(lambda: one.keeper.state.ready)
        first = asyncio.create_task(text_of(ask(model)))
        await until(lambda: one.inference.running == 1)
        second = asyncio.create_task(text_of(ask(model)))
        await until(lambda: one.inference.depth == 1)
        second.cancel()
        await until(lambda: one.inference.depth == 0, 0.2)
        assert await first == TEXT
    assert len(fake.chats) == 2, "the warm-up and the first"


async def test_an_error_line_in_mid_answer_reaches_the_reader_after_its_tokens() -> None:
    fake = FakeOllama(fail_after_tokens=2)
    async with fake.serving() as url, proxy(url) as one, client(one) as model:
        await until(lambda: one.keeper.state.ready)
        answer = ask(model)
        assert [await anext(answer), await anext(answer)] == [Token(1, "The "), Token(2, "valve ")]
        with pytest.raises(Unavailable, match="llama runner process has terminated"):
            await anext(answer)


async def test_an_answer_past_its_deadline_ends_with_what_it_has() -> None:
    fake = FakeOllama(token_s=0.1)
    async with fake.serving() as url, proxy(url) as one, client(one) as model:
        await until(lambda: one.keeper.state.ready)
        *tokens, end = [item async for item in ask(model, within_s=0.25)]
    assert 1 <= len(tokens) <= 3
    assert isinstance(end, AnswerEnd)
    assert (end.reason, end.answer_tokens) == ("deadline", len(tokens))


async def test_a_prompt_that_cannot_fit_is_refused_before_ollama_reads_it() -> None:
    fake = FakeOllama()
    boot = InferenceProxyBoot(model=MODEL, context_tokens=8)
    async with fake.serving() as url, proxy(url, boot=boot) as one, client(one) as model:
        await until(lambda: one.keeper.state.ready)
        long = [Message("user", "word " * 100)]
        with pytest.raises(TooLarge, match="at most 64 characters"):
            await text_of(model.stream(long, OPTIONS, Deadline.after(CLOCK.monotonic_s(), 5)))


async def test_an_ollama_that_is_killed_and_comes_back_is_loaded_again() -> None:
    fake = FakeOllama(token_s=0.2)
    async with contextlib.AsyncExitStack() as stack:
        killed = contextlib.AsyncExitStack()
        url = await killed.enter_async_context(fake.serving())
        one = await stack.enter_async_context(proxy(url))
        model = await stack.enter_async_context(client(one))
        await until(lambda: one.keeper.state.ready)
        answer = ask(model)
        await anext(answer)
        await killed.aclose()
        with pytest.raises(ChatbotError):
            await text_of(answer)
        await until(lambda: not one.keeper.state.ready)
        assert "Ollama is unavailable" in one.keeper.state.reason
        assert one.inference.running == 0
        with pytest.raises(Unavailable):
            await text_of(ask(model))
        fake.token_s = 0.0
        await stack.enter_async_context(fake.serving(int(url.rsplit(":", 1)[1])))
        await until(lambda: one.keeper.state.ready)
        await asyncio.sleep(1.1)
        assert await text_of(ask(model)) == TEXT
    assert fake.loads == 2


async def test_a_missing_model_is_pulled_with_progress_or_named() -> None:
    fake = FakeOllama(models=set())
    async with fake.serving() as url:
        stays = InferenceProxyBoot(model=MODEL, pull=False)
        async with proxy(url, boot=stays) as one:
            await until(lambda: "does not hold" in one.keeper.state.reason)
            assert (one.keeper.state.ready, fake.pulls) == (False, 0)
        async with proxy(url) as one, client(one) as model:
            await until(lambda: one.keeper.state.ready)
            assert await model.status() == ModelStatus(
                name=MODEL, digest=DIGEST, downloaded_bytes=SIZE_BYTES,
                total_bytes=SIZE_BYTES, loaded=True,
            )  # fmt: skip
    assert fake.pulls == 1


async def test_of_two_proxies_the_one_that_is_not_full_answers() -> None:
    slow, quick = FakeOllama(first_token_s=0.6), FakeOllama()
    no_line = Inference(max_waiting=0)
    async with (
        slow.serving() as slow_url,
        quick.serving() as quick_url,
        proxy(slow_url, no_line) as full,
        proxy(quick_url, no_line) as free,
        client(full) as alone,
    ):
        await until(lambda: full.keeper.state.ready and free.keeper.state.ready)
        occupying = asyncio.create_task(text_of(ask(alone)))
        idle = full.row("p0", 1)
        await until(lambda: full.inference.running == 1)
        # Its last heartbeat says idle, so it may be asked first: the refusal must go on.
        rows = [idle, dataclasses.replace(free.row("p1", 1), report={"slots": 1, "in_flight": 3})]
        both = InferenceProxies(Rows(lambda: rows), lambda: TOKEN, CLOCK, random.Random(1).sample)
        assert await text_of(ask(both)) == TEXT
        assert len(quick.chats) == 2
        await occupying
        await both.close()


async def test_a_cut_answer_is_never_continued_elsewhere() -> None:
    broken, whole = FakeOllama(fail_after_tokens=1), FakeOllama()
    async with (
        broken.serving() as broken_url,
        whole.serving() as whole_url,
        proxy(broken_url) as first,
        proxy(whole_url) as second,
    ):
        await until(lambda: first.keeper.state.ready and second.keeper.state.ready)
        rows = [first.row("p0", 1), dataclasses.replace(second.row("p1", 1), report={"slots": 0})]
        model = InferenceProxies(Rows(lambda: rows), lambda: TOKEN, CLOCK, random.Random(1).sample)
        answer = ask(model)
        assert await anext(answer) == Token(1, "The ")
        with pytest.raises(Unavailable):
            await anext(answer)
        await model.close()
    assert len(whole.chats) == 1, "only its warm-up"


async def test_no_proxy_at_all_is_said() -> None:
    async with client() as model:
        with pytest.raises(Unavailable, match="no proxy is ready"):
            await text_of(ask(model))
        assert await model.status() == ModelStatus()
