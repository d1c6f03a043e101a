"""The protocol between API and inference proxy, version 1: the documents, no transport.

`POST /v1/generate` with a `GenerateRequest` as JSON. Before the first token a failure is a status
with `{"error": {kind, message, retry_after_s}}`; afterwards it is a line of that shape. The answer
is NDJSON: lines `{"n", "text"}` counted from 1, then one line `{"end": {...}}`. A stream without an
end line was cut. Every response carries the header `VERSION_HEADER`.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from chatbot_core.errors import (
    Bug,
    Busy,
    ChatbotError,
    Denied,
    Invalid,
    NotFound,
    TooLarge,
    Unauthenticated,
    Unavailable,
)
from chatbot_runtime.domain.model import AnswerEnd, Message, Token

VERSION: Final = 1
VERSION_HEADER: Final = "chatbot-inference-version"
GENERATE_PATH: Final = "/v1/generate"
MAX_REQUEST_BYTES: Final = 1024 * 1024

_KINDS: Final[dict[str, type[ChatbotError]]] = {
    "busy": Busy,
    "unavailable": Unavailable,
    "too-large": TooLarge,
    "invalid": Invalid,
    "unauthenticated": Unauthenticated,
    "denied": Denied,
    "not-found": NotFound,
    "bug": Bug,
}
_KIND_OF: Final = {error: kind for kind, error in _KINDS.items()}


class WireMessage(BaseModel):
    """One message of the prompt."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    role: Literal["system", "user", "assistant"]
    content: str


class GenerateRequest(BaseModel):
    """What is asked; model and context size are the proxy's own, so that no request reloads."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    version: Literal[1] = VERSION
    messages: tuple[WireMessage, ...] = Field(min_length=1, max_length=256)
    max_output_tokens: int = Field(ge=1, le=32_768)
    temperature_percent: int = Field(ge=0, le=200)
    seed: int
    deadline_ms: int = Field(ge=1)

    def prompt(self) -> tuple[Message, ...]:
        """Return the messages as values."""
        return tuple(Message(one.role, one.content) for one in self.messages)


def parse_request(content: bytes) -> GenerateRequest:
    """Return the request. Raises Invalid, naming the first wrong field, also for its version."""
    try:
        return GenerateRequest.model_validate_json(content)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        path = ".".join(str(part) for part in first["loc"]) or "request"
        raise Invalid(path, first.get("input"), first["msg"]) from None


def encode(item: Token | AnswerEnd) -> bytes:
    """Return an item of an answer as a line."""
    if isinstance(item, Token):
        return _line({"n": item.n, "text": item.text})
    return _line({"end": asdict(item)})


def encode_error(error: ChatbotError) -> bytes:
    """Return an error as a line, or as the body of a refusal."""
    kind = next((_KIND_OF[one] for one in type(error).__mro__ if one in _KIND_OF), "bug")
    retry_after_s = getattr(error, "retry_after_s", 0.0)
    return _line({"error": {"kind": kind, "message": str(error), "retry_after_s": retry_after_s}})


def decode(line: str | bytes) -> Token | AnswerEnd:
    """Return the item of a line. Raises the error that the line carries, Bug for none of these."""
    value = _object(line)
    if "n" in value:
        return Token(int(value["n"]), str(value["text"]))
    if "end" in value:
        return AnswerEnd(**value["end"])
    raise decode_error(line)


def decode_error(line: str | bytes) -> ChatbotError:
    """Return the error of a line or a refusal's body, its wait kept."""
    stated = _object(line).get("error")
    if not isinstance(stated, dict):
        return Unavailable("inference", "the proxy sent a line of no known shape")
    message = str(stated.get("message", ""))
    wait_s = float(stated.get("retry_after_s") or 1.0)
    kind = str(stated.get("kind"))
    if kind == "busy":
        return Busy("inference", wait_s)
    if kind in {"invalid", "too-large"}:
        return _KINDS[kind]("prompt", "", message)
    if kind == "bug":
        return Bug(message)
    return Unavailable("inference", message, wait_s)


def _line(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode() + b"\n"


def _object(line: str | bytes) -> dict[str, Any]:
    try:
        value = json.loads(line)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise Unavailable("inference", "the proxy sent something that is no line of an answer")
    return value
