"""The OpenAI-compatible API: chat completions over the documents, models, embeddings.

Shapes follow the OpenAI API reference (chat/object, chat/streaming, embeddings). A field that has
no behaviour here is refused instead of ignored.
"""

from __future__ import annotations

import base64
import contextlib
import json
import secrets
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any, Literal

import numpy as np
from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from chatbot_core.errors import ChatbotError, Invalid, NotFound
from chatbot_runtime.domain.model import Message
from chatbot_runtime.routes import problems, sse
from chatbot_runtime.routes.chat import QUESTION_MAX_CHARACTERS, citation_json, finished
from chatbot_runtime.routes.context import ApiServices, CallerDependency, Services
from chatbot_runtime.services.questions import Done, Event, Piece, Question

router = APIRouter(prefix="/v1")

_INPUTS_MAX = 64


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class ChatMessage(_Strict):
    """One message; earlier ones are shown to the model as far as they fit."""

    role: Literal["system", "user", "assistant"]
    content: str = Field(max_length=QUESTION_MAX_CHARACTERS)


class StreamOptions(_Strict):
    """Whether a last chunk carries the token counts."""

    include_usage: bool = False


class ChatCompletion(_Strict):
    """A chat completion; the last message is the question about the documents."""

    model: str
    messages: list[ChatMessage] = Field(min_length=1, max_length=100)
    stream: bool = False
    stream_options: StreamOptions = StreamOptions()
    temperature: float | None = Field(default=None, ge=0, le=2)
    max_tokens: int | None = Field(default=None, ge=1)
    max_completion_tokens: int | None = Field(default=None, ge=1)
    seed: int | None = Field(default=None, ge=0, le=2**31 - 1)


class Embeddings(_Strict):
    """Texts to vectors."""

    model: str
    input: str | list[str]
    encoding_format: Literal["float", "base64"] = "float"


@router.post("/chat/completions", response_model=None)
async def chat_completions(
    body: ChatCompletion, request: Request, caller: CallerDependency, services: Services
) -> Response:
    """Answer the last message from the documents; `citations` is added to the known shape."""
    _check_model(body.model, services.live().inference.model)
    events = await sse.begun(request, services.questions.ask(caller.workspace, _question(body)))
    head = {
        "id": f"chatcmpl-{secrets.token_hex(12)}",
        "created": int(services.clock.unix_s()),
        "model": body.model,
    }
    if body.stream:
        return sse.stream(_chunks(events, head, body.stream_options.include_usage))
    done = await finished(events)
    message = {"role": "assistant", "content": done.answer}
    choice = {"index": 0, "message": message, "finish_reason": _finish(done), "logprobs": None}
    shown = {"object": "chat.completion", "choices": [choice], "usage": _usage(done)}
    return JSONResponse({**head, **shown, "citations": _citations(done)})


@router.get("/models")
async def models(caller: CallerDependency, services: Services) -> dict[str, Any]:
    """List the chat model and the embedding model."""
    ids = [name for name in (services.live().inference.model, _embedding_model(services)) if name]
    entry = {"object": "model", "created": 0, "owned_by": "chatbot"}
    return {"object": "list", "data": [{"id": name, **entry} for name in ids]}


@router.post("/embeddings")
async def embeddings(
    body: Embeddings, caller: CallerDependency, services: Services
) -> dict[str, Any]:
    """Return unit vectors of texts."""
    _check_model(body.model, _embedding_model(services))
    texts = [body.input] if isinstance(body.input, str) else body.input
    if not 1 <= len(texts) <= _INPUTS_MAX or any(not text.strip() for text in texts):
        raise Invalid("input", f"{len(texts)} texts", f"1 to {_INPUTS_MAX} texts, none empty")
    vectors = await services.embedder.embed(texts)
    data = [
        {"object": "embedding", "index": i, "embedding": _encoded(vector, body.encoding_format)}
        for i, vector in enumerate(vectors)
    ]
    return {"object": "list", "model": body.model, "data": data}


def _question(body: ChatCompletion) -> Question:
    *earlier, last = body.messages
    if last.role != "user" or not last.content.strip():
        raise Invalid("messages", last.role, "ended by a user message with text")
    return Question(
        text=last.content,
        history=tuple(Message(message.role, message.content) for message in earlier),
        max_output_tokens=body.max_completion_tokens or body.max_tokens,
        temperature_percent=None if body.temperature is None else round(body.temperature * 100),
        seed=body.seed,
    )


async def _chunks(
    events: AsyncGenerator[Event, None], head: dict[str, Any], include_usage: bool
) -> AsyncIterator[bytes]:
    def chunk(delta: dict[str, Any], finish: str | None = None, **extra: Any) -> bytes:
        choice = {"index": 0, "delta": delta, "finish_reason": finish}
        return _data({**head, "object": "chat.completion.chunk", "choices": [choice], **extra})

    async with contextlib.aclosing(events):
        try:
            yield chunk({"role": "assistant", "content": ""})
            async for event in events:
                if isinstance(event, Piece) and event.text:
                    yield chunk({"content": event.text})
                elif isinstance(event, Done):
                    yield chunk({}, _finish(event), citations=_citations(event))
                    if include_usage:
                        last = {"choices": [], "usage": _usage(event)}
                        yield _data({**head, "object": "chat.completion.chunk", **last})
        except ChatbotError as error:
            yield _data(problems.problem(error))
    yield b"data: [DONE]\n\n"


def _data(value: dict[str, Any]) -> bytes:
    return f"data: {json.dumps(value, ensure_ascii=False)}\n\n".encode()


def _citations(done: Done) -> list[dict[str, Any]]:
    return [citation_json(citation) for citation in done.citations]


def _finish(done: Done) -> str:
    return "length" if done.finish_reason == "length" else "stop"


def _usage(done: Done) -> dict[str, int]:
    prompt, answer = done.usage.prompt_tokens, done.usage.answer_tokens
    return {
        "prompt_tokens": prompt,
        "completion_tokens": answer,
        "total_tokens": prompt + answer,
    }


def _check_model(asked: str, known: str) -> None:
    if asked != known:
        raise NotFound(f"model {asked} does not exist here; GET /v1/models lists what does")


def _embedding_model(services: ApiServices) -> str:
    return services.embedder.fingerprint.partition("/")[0]


def _encoded(vector: NDArray[np.float32], encoding: str) -> list[float] | str:
    if encoding == "base64":
        return base64.b64encode(vector.astype("<f4").tobytes()).decode()
    numbers: list[float] = vector.tolist()
    return numbers
