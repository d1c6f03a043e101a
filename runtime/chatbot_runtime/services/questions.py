"""The question path: embed, search every slot, pass the last wall, answer, cite."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from chatbot_core.errors import Unavailable
from chatbot_core.retry import Deadline
from chatbot_core.runtime_config import Live
from chatbot_runtime.domain import citations, merging, prompts
from chatbot_runtime.domain.citations import FenceFilter, MarkerFilter
from chatbot_runtime.domain.extract import Sentence, extract, ranked, sentences
from chatbot_runtime.domain.model import (
    AnswerEnd,
    Citation,
    GenerationOptions,
    Message,
    Passage,
    Query,
    Token,
)
from chatbot_runtime.ports import Documents, Embedder, EventLog, LanguageModel, Shards
from chatbot_runtime.services.stages import QUESTIONS, TOKENS, WALL_DROPPED, Stages

#: What an extractive answer names as its model.
EXTRACTIVE: Final = "extractive"
_CONTEXT_RESERVE_TOKENS: Final = 64


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked; None takes the cluster's own option. No documents = all of the workspace."""

    text: str
    document_ids: tuple[str, ...] = ()
    history: tuple[Message, ...] = ()
    max_output_tokens: int | None = None
    temperature_percent: int | None = None
    seed: int | None = None


@dataclass(frozen=True, slots=True)
class Evidence:
    """What was found: distinct passages best first, and the share of slots that answered."""

    passages: tuple[Passage, ...]
    coverage: float


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens as the model counted them and as they were passed on."""

    prompt_tokens: int = 0
    answer_tokens: int = 0
    streamed_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Meta:
    """First event: from here on the answer has begun."""

    model: str
    coverage: float
    candidates: tuple[Citation, ...]


@dataclass(frozen=True, slots=True)
class Piece:
    """A token of the answer; its text may be empty while a citation marker is being read."""

    n: int
    text: str


@dataclass(frozen=True, slots=True)
class Cited:
    """A citation of the finished answer."""

    citation: Citation


@dataclass(frozen=True, slots=True)
class Done:
    """Last event: the whole answer."""

    answer: str
    citations: tuple[Citation, ...]
    refused: bool
    coverage: float
    timings_ms: dict[str, float]
    usage: Usage
    model: str
    finish_reason: str


Event = Meta | Piece | Cited | Done


@dataclass(frozen=True, slots=True)
class _Ended:
    """How the model ended."""

    model: str
    reason: str = "stop"
    usage: Usage = Usage()


@dataclass(slots=True)
class _Run:
    """One question while it runs."""

    workspace: str
    question: Question
    deadline: Deadline
    began_s: float
    coverage: float = 1.0
    timings_ms: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Questions:
    """Answers questions inside one workspace.

    `nonce` makes a prompt's fence from its content: nobody outside can foretell it, and the same
    question over the same passages gives the same prompt, hence the same answer at temperature 0.
    """

    documents: Documents
    log: EventLog
    shards: Shards
    embedder: Embedder
    model: LanguageModel
    stages: Stages
    live: Callable[[], Live]
    nonce: Callable[[str], str]

    async def ask(self, workspace: str, question: Question) -> AsyncGenerator[Event, None]:
        """Yield Meta, pieces, citations and Done.

        Meta comes with the first token, so that whatever fails before is an error of the request:
        Busy, Unavailable, NotFound for a document that is not there, Invalid for too long a text.
        """
        live = self.live()
        began_s = self.stages.clock.monotonic_s()
        deadline = Deadline.after(began_s, live.inference.max_answer_s)
        run = _Run(workspace, question, deadline, began_s)
        evidence = await self._evidence(run, live.retrieval.max_passages)
        retrieval = live.retrieval
        passages = merging.adaptive(
            evidence.passages, retrieval.min_passages, retrieval.max_passages
        )
        if not merging.enough_evidence(passages):
            answering = self._refusal(run)
        elif live.answer_mode == "Extract":
            answering = self._extracted(run, passages)
        else:
            answering = self._generated(run, passages)
        async with contextlib.aclosing(answering):
            async for event in answering:
                yield event

    async def search(self, workspace: str, text: str, k: int) -> Evidence:
        """Return up to k passages, best first, with their similarity."""
        now_s = self.stages.clock.monotonic_s()
        deadline = Deadline.after(now_s, self.live().inference.max_answer_s)
        evidence = await self._evidence(_Run(workspace, Question(text), deadline, now_s), k)
        return Evidence(evidence.passages[:k], evidence.coverage)

    async def _evidence(self, run: _Run, k: int) -> Evidence:
        timed, took = self.stages.timed, run.timings_ms
        generation = await self.log.generation()
        if generation.fingerprint != self.embedder.fingerprint:
            raise Unavailable("retrieval", "the corpus was embedded by another model")
        wanted = await self.documents.numbers(run.workspace, run.question.document_ids)
        with timed("embed", took):
            vector = (await self.embedder.embed([run.question.text]))[0]
        query = Query(vector, run.workspace, k + merging.MARGIN, generation.gen, wanted)
        with timed("search", took):
            found = await self.shards.search(query, run.deadline)
        run.coverage = found.coverage
        self._check_coverage(found.coverage)
        hits = merging.ordered(found.hits)
        with timed("wall", took):
            passages = await self.documents.passages(run.workspace, generation.gen, hits)
        WALL_DROPPED.inc(len(hits) - len(passages))
        return Evidence(merging.distinct(passages), found.coverage)

    def _check_coverage(self, coverage: float) -> None:
        least = self.live().retrieval.min_coverage_percent
        if coverage * 100 < least:
            reason = f"{coverage:.0%} of the documents can be searched, {least} % are required"
            raise Unavailable("retrieval", reason, retry_after_s=2)

    async def _refusal(self, run: _Run) -> AsyncGenerator[Event, None]:
        ended = _Ended(self._model_name())
        yield Meta(ended.model, run.coverage, ())
        yield Piece(1, prompts.REFUSAL)
        yield self._done(run, prompts.REFUSAL, (), ended, refused=True)

    async def _extracted(
        self, run: _Run, passages: Sequence[Passage]
    ) -> AsyncGenerator[Event, None]:
        found = extract(run.question.text, passages)
        if found is None:
            async for event in self._refusal(run):
                yield event
            return
        candidates = citations.numbered(passages)
        yield Meta(EXTRACTIVE, run.coverage, candidates)
        yield Piece(1, found.text)
        cited = tuple(candidates[n - 1] for n in found.numbers)
        for citation in cited:
            yield Cited(citation)
        yield self._done(run, found.text, cited, _Ended(EXTRACTIVE))

    async def _generated(
        self, run: _Run, passages: Sequence[Passage]
    ) -> AsyncGenerator[Event, None]:
        options = self._options(run.question)
        budget = options.context_tokens - options.max_output_tokens - _CONTEXT_RESERVE_TOKENS
        leading = merging.leading(passages)
        nonce = self.nonce("\n".join([run.question.text, *(p.text for p in leading)]))
        told = await self._ranked(run.question.text, leading, passages)
        prompt = prompts.build(
            run.question.text, leading, nonce, budget, run.question.history, told
        )
        shown = leading[: prompt.used]
        fences, markers = FenceFilter(prompt.fence), MarkerFilter(len(shown))
        text, ended = "", _Ended(options.model)
        streamed = 0
        async with _closing(self.model.stream(prompt.messages, options, run.deadline)) as stream:
            async for item in stream:
                if streamed == 0:
                    self._record_first(run, item)
                    yield Meta(options.model, run.coverage, citations.numbered(shown))
                if isinstance(item, AnswerEnd):
                    usage = Usage(item.prompt_tokens, item.answer_tokens, streamed)
                    ended = _Ended(item.model or options.model, item.reason, usage)
                    break
                streamed += 1
                piece = markers.feed(fences.feed(item.text))
                text += piece
                yield Piece(item.n, piece)
        if rest := markers.feed(fences.end()) + markers.end():
            text += rest
            yield Piece(streamed, rest)
        cited = citations.cited(text, shown, markers.cited)
        for citation in cited:
            yield Cited(citation)
        yield self._done(run, text.strip(), cited, ended)

    async def _ranked(
        self, question: str, shown: Sequence[Passage], passages: Sequence[Passage]
    ) -> tuple[Sentence, ...]:
        found = sentences(shown)
        vectors = await self.embedder.embed([question, *(one.text for one in found)])
        return ranked(question, found, vectors, passages)

    def _record_first(self, run: _Run, first: Token | AnswerEnd) -> None:
        now_s = self.stages.clock.monotonic_s()
        self.stages.record("first_token", now_s - run.began_s, run.timings_ms)

    def _done(
        self,
        run: _Run,
        answer: str,
        cited: tuple[Citation, ...],
        ended: _Ended,
        refused: bool = False,
    ) -> Done:
        self.stages.record("answer", self.stages.clock.monotonic_s() - run.began_s, run.timings_ms)
        QUESTIONS.labels("refused" if refused else "answered").inc()
        TOKENS.labels("prompt").inc(ended.usage.prompt_tokens)
        TOKENS.labels("answer").inc(ended.usage.answer_tokens)
        return Done(
            answer=answer,
            citations=cited,
            refused=refused,
            coverage=run.coverage,
            timings_ms=dict(run.timings_ms),
            usage=ended.usage,
            model=ended.model,
            finish_reason=ended.reason,
        )

    def _model_name(self) -> str:
        live = self.live()
        return EXTRACTIVE if live.answer_mode == "Extract" else live.inference.model

    def _options(self, question: Question) -> GenerationOptions:
        inference = self.live().inference
        most = min(inference.max_output_tokens, inference.context_tokens // 2)
        temperature, seed = question.temperature_percent, question.seed
        return GenerationOptions(
            model=inference.model,
            max_output_tokens=min(most, question.max_output_tokens or most),
            temperature_percent=(
                inference.temperature_percent if temperature is None else temperature
            ),
            seed=inference.seed if seed is None else seed,
            context_tokens=inference.context_tokens,
        )


@contextlib.asynccontextmanager
async def _closing(
    stream: AsyncIterator[Token | AnswerEnd],
) -> AsyncIterator[AsyncIterator[Token | AnswerEnd]]:
    """Close the model's stream at the end, also where the asker leaves: that stops the model."""
    try:
        yield stream
    finally:
        if isinstance(stream, AsyncGenerator):
            await stream.aclose()
