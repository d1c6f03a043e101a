"""Answers of one Ollama behind the only queue to it.

Ollama notices a closed connection at its first token and not before: a caller who leaves while
the prompt is being read leaves Ollama busy. So each running answer is read by a task of its own
that outlives its caller, and the slot stays taken until Ollama is really free.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
from collections.abc import AsyncGenerator, Callable
from typing import Final

from chatbot_core.errors import Bug, ChatbotError, TooLarge, Unavailable
from chatbot_core.retry import Deadline
from chatbot_core.runtime_config import Inference as InferenceLive
from chatbot_core.runtime_config import InferenceProxyBoot
from chatbot_runtime.domain.admission import BoundedQueue, Ticket
from chatbot_runtime.domain.inference_wire import GenerateRequest
from chatbot_runtime.domain.model import AnswerEnd, GenerationOptions, Token
from chatbot_runtime.ports import Clock, ModelServer
from chatbot_runtime.services import inference_metrics as metrics
from chatbot_runtime.services import slots

log = logging.getLogger(__name__)

#: Measured on Ollama 0.9.6: a connection closed while tokens flow frees its slot within a second.
RELEASE_S: Final = 1.0
#: No tokeniser packs more than this many characters of prose into a token on average.
_CHARACTERS_PER_TOKEN: Final = 8

_Item = Token | AnswerEnd | ChatbotError


@dataclasses.dataclass(slots=True)
class _Running:
    """An answer that Ollama is working on; at most `max_output_tokens` items are ever buffered."""

    ticket: Ticket
    began_s: float
    items: asyncio.Queue[_Item] = dataclasses.field(default_factory=asyncio.Queue)
    tokens: int = 0
    first_token_s: float = 0.0
    abandoned: bool = False
    task: asyncio.Task[None] | None = None

    def abandon(self) -> None:
        """Stop as soon as Ollama can notice: now, or at the first token."""
        self.abandoned = True
        if self.tokens and self.task is not None:
            self.task.cancel()


class InferenceQueue:
    """The one way to the model server: `answer` streams, `depth` and `running` say how busy."""

    def __init__(
        self,
        server: ModelServer,
        boot: InferenceProxyBoot,
        live: Callable[[], InferenceLive],
        clock: Clock,
        on_failure: Callable[[], None],
    ) -> None:
        """`on_failure` is called when the model server failed in an answer: it may be gone."""
        self._server = server
        self._boot = boot
        self._live = live
        self._clock = clock
        self._on_failure = on_failure
        now = live()
        self._queue = BoundedQueue(
            "inference", boot.parallel_requests, now.max_waiting, now.max_wait_s
        )
        self._running: set[asyncio.Task[None]] = set()

    @property
    def depth(self) -> int:
        """Return how many requests wait for a slot."""
        return self._queue.waiting

    @property
    def running(self) -> int:
        """Return how many slots Ollama has not given back yet."""
        return self._queue.running

    async def answer(self, request: GenerateRequest) -> AsyncGenerator[Token | AnswerEnd, None]:
        """Yield tokens, then one AnswerEnd; its reason is `deadline` where time ran out.

        Closing the generator stops the answer. Raises Busy when the queue is full, TooLarge for a
        prompt that cannot fit, Unavailable when the model server fails or is too slow for even
        one token.
        """
        self._check_size(request)
        deadline = Deadline.after(self._clock.monotonic_s(), request.deadline_ms / 1000)
        ticket = await self._admit(deadline)
        running = _Running(ticket, self._clock.monotonic_s())
        running.task = asyncio.create_task(self._read(request, running))
        self._running.add(running.task)
        running.task.add_done_callback(self._running.discard)
        try:
            async with contextlib.aclosing(self._items(running, deadline)) as items:
                async for item in items:
                    yield item
        finally:
            running.abandon()

    async def close(self) -> None:
        """Cancel what still runs."""
        for task in tuple(self._running):
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)

    def _check_size(self, request: GenerateRequest) -> None:
        characters = sum(len(one.content) for one in request.messages)
        allowed = self._boot.context_tokens * _CHARACTERS_PER_TOKEN
        if characters > allowed:
            raise TooLarge("prompt", f"{characters} characters", f"at most {allowed} characters")

    async def _admit(self, deadline: Deadline) -> Ticket:
        now_s = self._clock.monotonic_s()
        live = self._live()
        bounds = (self._boot.parallel_requests, live.max_waiting, live.max_wait_s)
        self._queue.resize(*bounds, now_s)
        try:
            ticket = await slots.take(self._queue, self._clock, deadline)
        except ChatbotError:
            metrics.ANSWERS.labels("refused").inc()
            raise
        finally:
            self._count()
        metrics.QUEUE_WAIT.observe(ticket.admitted_s - ticket.entered_s)
        return ticket

    async def _items(
        self, running: _Running, deadline: Deadline
    ) -> AsyncGenerator[Token | AnswerEnd, None]:
        while True:
            try:
                async with asyncio.timeout(deadline.left_s(self._clock.monotonic_s())):
                    item = await running.items.get()
            except TimeoutError:
                metrics.ANSWERS.labels("deadline").inc()
                if not running.tokens:
                    raise Unavailable("inference", "no token before the deadline") from None
                yield self._end(running, AnswerEnd("deadline", 0, running.tokens, 0, 0, ""))
                return
            if isinstance(item, ChatbotError):
                metrics.ANSWERS.labels("failed").inc()
                raise item
            if isinstance(item, AnswerEnd):
                self._measure(item)
                yield item
                return
            yield item

    async def _read(self, request: GenerateRequest, running: _Running) -> None:
        """Move the answer from Ollama into the buffer, and give back the slot when it is free."""
        done = False
        try:
            async with asyncio.timeout(self._live().max_answer_s):
                done = await self._read_all(request, running)
        except ChatbotError as error:
            done = True
            self._on_failure()
            running.items.put_nowait(error)
        except TimeoutError:
            running.items.put_nowait(
                self._end(running, AnswerEnd("deadline", 0, running.tokens, 0, 0, ""))
                if running.tokens
                else Unavailable("inference", "no token within maxAnswerSeconds")
            )
        except Exception as error:
            log.exception("answer failed")
            running.items.put_nowait(Bug(f"answer failed: {type(error).__name__}"))
        finally:
            self._give_back(running.ticket, 0.0 if done else RELEASE_S)

    async def _read_all(self, request: GenerateRequest, running: _Running) -> bool:
        """Return True when Ollama finished by itself, False when it was left."""
        options = GenerationOptions(
            model=self._boot.model,
            max_output_tokens=request.max_output_tokens,
            temperature_percent=request.temperature_percent,
            seed=request.seed,
            context_tokens=self._boot.context_tokens,
        )
        # How long a server that is not ours keeps its models is its owner's affair.
        keep_loaded = None if self._boot.endpoint else self._boot.keep_loaded
        answer = self._server.chat(request.prompt(), options, keep_loaded)
        async with contextlib.aclosing(answer) as items:
            async for item in items:
                if isinstance(item, AnswerEnd):
                    running.items.put_nowait(self._end(running, item))
                    return True
                if running.abandoned:
                    return False
                if not running.tokens:
                    running.first_token_s = self._clock.monotonic_s() - running.began_s
                running.tokens = item.n
                running.items.put_nowait(item)
        raise Unavailable("inference", "the answer ended without its last line")

    def _give_back(self, ticket: Ticket, after_s: float) -> None:
        def give_back() -> None:
            self._queue.leave(ticket, self._clock.monotonic_s())
            self._count()

        if after_s:
            asyncio.get_running_loop().call_later(after_s, give_back)
        else:
            give_back()

    def _end(self, running: _Running, end: AnswerEnd) -> AnswerEnd:
        """Return the end with times as measured here, from the slot on: Ollama may omit its own."""
        return dataclasses.replace(
            end,
            model=self._boot.model,
            first_token_s=running.first_token_s,
            total_s=self._clock.monotonic_s() - running.began_s,
        )

    def _measure(self, end: AnswerEnd) -> None:
        metrics.ANSWERS.labels(end.reason if end.reason in metrics.OUTCOMES else "other").inc()
        metrics.FIRST_TOKEN.observe(end.first_token_s)
        decode_s = end.total_s - end.first_token_s
        if end.answer_tokens > 1 and decode_s > 0:
            metrics.TOKENS_PER_SECOND.observe((end.answer_tokens - 1) / decode_s)

    def _count(self) -> None:
        metrics.QUEUE_DEPTH.set(self._queue.waiting)
        metrics.IN_FLIGHT.set(self._queue.running)
