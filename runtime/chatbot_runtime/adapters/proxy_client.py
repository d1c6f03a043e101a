"""`ports.LanguageModel` over the inference proxies: the API's side of `domain.inference_wire`.

Two proxies are drawn at random and the one with the shorter reported queue is asked (M.
Mitzenmacher, "The Power of Two Choices in Randomized Load Balancing", 2001). Reports are up to
two seconds old, so what this process itself has running there is added to them; counting some of
it twice only makes the difference between two proxies clearer.
"""

from __future__ import annotations

import contextlib
import logging
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Sequence
from typing import Final

import httpx

from chatbot_core import names
from chatbot_core.errors import Busy, ChatbotError, Unavailable
from chatbot_core.retry import Deadline
from chatbot_core.runtime_config import ModelStatus
from chatbot_runtime.domain import inference_wire as wire
from chatbot_runtime.domain.model import (
    AnswerEnd,
    GenerationOptions,
    MemberRow,
    Message,
    Token,
)
from chatbot_runtime.ports import Clock, Members

log = logging.getLogger(__name__)

_WHAT: Final = "inference"
_MAX_AGE_S: Final = 10.0
_REFRESH_S: Final = 1.0
_CONNECT_S: Final = 1.0
#: The proxy ends an answer at the deadline; its last line needs a moment to arrive.
_GRACE_S: Final = 2.0

Draw = Callable[[Sequence[MemberRow], int], list[MemberRow]]
"""Draws that many distinct rows at random: `random.sample` or a seeded one."""


class InferenceProxies:
    """The inference tier as one model; `token` returns the internal token as of now."""

    def __init__(
        self, members: Members, token: Callable[[], str], clock: Clock, draw: Draw
    ) -> None:
        self._members = members
        self._token = token
        self._clock = clock
        self._draw = draw
        self._rows: tuple[MemberRow, ...] = ()
        self._read_at_s = float("-inf")
        self._sent: Counter[str] = Counter()
        # Pods of this cluster are asked directly, whatever proxy the environment names.
        self._http = httpx.AsyncClient(
            trust_env=False, limits=httpx.Limits(max_connections=None, max_keepalive_connections=64)
        )

    async def close(self) -> None:
        """Close all connections."""
        await self._http.aclose()

    async def stream(
        self, messages: Sequence[Message], options: GenerationOptions, deadline: Deadline
    ) -> AsyncGenerator[Token | AnswerEnd, None]:
        """Yield tokens, then one AnswerEnd; another proxy is asked only before the first token.

        Raises Busy when every proxy's queue is full, Unavailable when none answers.
        """
        refusals: list[ChatbotError] = []
        for row in await self._in_order(options.model):
            answer = self._ask(row, messages, options, deadline)
            async with contextlib.aclosing(answer) as items:
                try:
                    first = await anext(items)
                except (Busy, Unavailable) as error:
                    refusals.append(error)
                    log.info("proxy refused", extra={"proxy": row.name, "why": str(error)})
                    continue
                yield first
                async for item in items:
                    yield item
                return
        raise _worst(refusals)

    async def status(self) -> ModelStatus:
        """Return the model of the proxy that is furthest, as the heartbeats state it."""
        rows = await self._live()
        if not rows:
            return ModelStatus()
        report = max((row.report for row in rows), key=_progress)
        return ModelStatus(
            name=str(report.get("model", "")),
            digest=str(report.get("digest", "")),
            downloaded_bytes=_number(report, "downloaded_bytes"),
            total_bytes=_number(report, "total_bytes"),
            loaded=bool(report.get("loaded", False)),
        )

    async def _in_order(self, model: str) -> list[MemberRow]:
        """Return ready proxies, the better of two first, then the rest by load.

        While the model changes, proxies that hold the wanted one already come before the others.
        """
        ready = [row for row in await self._live() if row.ready]
        by_load = sorted(ready, key=self._load)
        drawn = self._draw(by_load, min(2, len(by_load)))
        best = min(drawn, key=self._load, default=None)
        if best is not None:
            by_load.remove(best)
            by_load.insert(0, best)
        return sorted(by_load, key=lambda row: row.report.get("model") != model)

    def _load(self, row: MemberRow) -> float:
        asked = _number(row.report, "queue_depth") + _number(row.report, "in_flight")
        return (asked + self._sent[row.name]) / max(1, _number(row.report, "slots"))

    async def _live(self) -> tuple[MemberRow, ...]:
        now_s = self._clock.monotonic_s()
        if now_s - self._read_at_s >= _REFRESH_S:
            self._read_at_s = now_s
            rows = await self._members.live(_MAX_AGE_S)
            self._rows = tuple(row for row in rows if row.role == names.Role.INFERENCE_PROXY.value)
        return self._rows

    async def _ask(
        self,
        row: MemberRow,
        messages: Sequence[Message],
        options: GenerationOptions,
        deadline: Deadline,
    ) -> AsyncGenerator[Token | AnswerEnd, None]:
        left_ms = deadline.left_ms(self._clock.monotonic_s())
        if left_ms < 1:
            raise Unavailable(_WHAT, "no time is left")
        request = wire.GenerateRequest(
            messages=tuple(
                wire.WireMessage.model_validate({"role": one.role, "content": one.content})
                for one in messages
            ),
            max_output_tokens=options.max_output_tokens,
            temperature_percent=options.temperature_percent,
            seed=options.seed,
            deadline_ms=left_ms,
        )
        self._sent[row.name] += 1
        try:
            async with contextlib.aclosing(self._lines(row, request)) as items:
                async for item in items:
                    yield item
        finally:
            self._sent[row.name] -= 1

    async def _lines(
        self, row: MemberRow, request: wire.GenerateRequest
    ) -> AsyncGenerator[Token | AnswerEnd, None]:
        timeout = httpx.Timeout(request.deadline_ms / 1000 + _GRACE_S, connect=_CONNECT_S)
        headers = {"Authorization": f"Bearer {self._token()}", "Content-Type": "application/json"}
        url = f"http://{row.address}{wire.GENERATE_PATH}"
        content = request.model_dump_json()
        try:
            async with self._http.stream(
                "POST", url, content=content, headers=headers, timeout=timeout
            ) as response:
                _check_version(response)
                if response.status_code != httpx.codes.OK:
                    raise wire.decode_error(await response.aread())
                async for line in response.aiter_lines():
                    item = wire.decode(line)
                    yield item
                    if isinstance(item, AnswerEnd):
                        return
        except httpx.HTTPError as error:
            raise Unavailable(_WHAT, type(error).__name__) from error
        raise Unavailable(_WHAT, "the answer was cut")


def _check_version(response: httpx.Response) -> None:
    version = response.headers.get(wire.VERSION_HEADER)
    if version != str(wire.VERSION):
        raise Unavailable(_WHAT, f"the proxy speaks version {version} of the protocol")


def _worst(refusals: Sequence[ChatbotError]) -> ChatbotError:
    """Return Busy with the shortest wait if any proxy was only busy, else the last failure."""
    busy = [one for one in refusals if isinstance(one, Busy)]
    if busy:
        return Busy(_WHAT, min(one.retry_after_s for one in busy))
    return refusals[-1] if refusals else Unavailable(_WHAT, "no proxy is ready")


def _number(report: dict[str, object], key: str) -> int:
    value = report.get(key, 0)
    return value if isinstance(value, int) else 0


def _progress(report: dict[str, object]) -> tuple[bool, int]:
    return bool(report.get("loaded", False)), _number(report, "downloaded_bytes")
