"""Questions: an answer as server-sent events or as one JSON, search, models."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field

from chatbot_core.errors import Bug, ChatbotError, Invalid
from chatbot_runtime.domain.model import Citation, Passage
from chatbot_runtime.routes import problems, sse
from chatbot_runtime.routes.context import CallerDependency, Services
from chatbot_runtime.services.questions import Cited, Done, Event, Meta, Piece, Question

log = logging.getLogger(__name__)

router = APIRouter(prefix="/api")

QUESTION_MAX_CHARACTERS = 8000


class Chat(BaseModel):
    """A question about the workspace's documents, or about some of them."""

    model_config = ConfigDict(extra="forbid")
    question: str = Field(min_length=1, max_length=QUESTION_MAX_CHARACTERS)
    documentIds: list[str] = Field(default=[], max_length=100)  # noqa: N815 - JSON's own case
    stream: bool = True


class FoundPassage(BaseModel):
    """A passage with its similarity, the inner product of unit vectors."""

    documentId: str  # noqa: N815 - JSON's own case
    name: str
    page: int | None
    start: int
    end: int
    text: str
    score: float


class SearchResult(BaseModel):
    """Passages, best first; `coverage` is the share of the index that answered."""

    items: list[FoundPassage]
    coverage: float
    consistency: str = ""


class ModelShown(BaseModel):
    """The model that answers."""

    name: str
    digest: str
    loaded: bool


class ModelList(BaseModel):
    """The models of the cluster."""

    items: list[ModelShown]


@router.post("/chat", response_model=None)
async def chat(
    body: Chat, request: Request, caller: CallerDependency, services: Services
) -> Response:
    """Answer from the documents, with citations.

    Streamed: `meta`, `token` (its id counts the tokens), `citation`, `done`, or `error` once the
    answer has begun. With `"stream": false` one JSON.
    """
    if not body.question.strip():
        raise Invalid("question", body.question, "a question")
    question = Question(body.question, tuple(body.documentIds))
    asked = services.questions.ask(caller.workspace, question)
    events = await sse.begun(request, asked)
    if body.stream:
        return sse.stream(_wire(events))
    return JSONResponse(answer_json(await finished(events)))


@router.get("/search")
async def search(
    caller: CallerDependency,
    services: Services,
    q: Annotated[str, Query(min_length=1, max_length=QUESTION_MAX_CHARACTERS)],
    k: Annotated[int, Query(ge=1, le=50)] = 10,
) -> SearchResult:
    """Return the passages nearest to a text."""
    evidence = await services.questions.search(caller.workspace, q, k)
    items = [_found(passage) for passage in evidence.passages]
    return SearchResult(items=items, coverage=evidence.coverage)


@router.get("/models")
async def models(caller: CallerDependency, services: Services) -> ModelList:
    """Return the model of the cluster."""
    status = await services.model.status()
    name = status.name or services.live().inference.model
    return ModelList(items=[ModelShown(name=name, digest=status.digest, loaded=status.loaded)])


async def finished(events: AsyncGenerator[Event, None]) -> Done:
    """Return the end of an answer whose pieces nobody reads."""
    async with contextlib.aclosing(events):
        async for event in events:
            if isinstance(event, Done):
                return event
    raise Bug("an answer ended without its last event")


def answer_json(done: Done) -> dict[str, Any]:
    """Return a finished answer as the API shows it."""
    return {
        "answer": done.answer,
        "citations": [citation_json(citation) for citation in done.citations],
        "refused": done.refused,
        "coverage": done.coverage,
        "consistency": "",
        "timings": done.timings_ms,
        "usage": {
            "answerTokens": done.usage.answer_tokens,
            "promptTokens": done.usage.prompt_tokens,
            "streamedTokens": done.usage.streamed_tokens,
        },
        "model": done.model,
    }


def citation_json(citation: Citation) -> dict[str, Any]:
    """Return a citation as the API shows it; offsets count characters of the extracted text."""
    return {
        "n": citation.n,
        "documentId": citation.document_id,
        "name": citation.name,
        "page": citation.page,
        "start": citation.start,
        "end": citation.end,
        "text": citation.text,
    }


async def _wire(events: AsyncGenerator[Event, None]) -> AsyncIterator[bytes]:
    async with contextlib.aclosing(events):
        try:
            async for event in events:
                yield _one(event)
        except ChatbotError as error:
            if isinstance(error, Bug):
                log.exception("bug in a running answer")
            yield sse.event("error", problems.problem(error))


def _one(event: Event) -> bytes:
    match event:
        case Meta(model, coverage, candidates):
            shown = [citation_json(citation) for citation in candidates]
            data = {"model": model, "coverage": coverage, "consistency": "", "candidates": shown}
            return sse.event("meta", data)
        case Piece(n, text):
            return sse.event("token", {"text": text}, n)
        case Cited(citation):
            return sse.event("citation", citation_json(citation))
        case Done():
            return sse.event("done", answer_json(event))


def _found(passage: Passage) -> FoundPassage:
    return FoundPassage(
        documentId=passage.doc_id,
        name=passage.name,
        page=passage.page,
        start=passage.start,
        end=passage.end,
        text=passage.text,
        score=passage.score,
    )
