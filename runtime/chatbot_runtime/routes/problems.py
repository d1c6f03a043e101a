"""Errors to `application/problem+json` (RFC 9457), with `Retry-After` where it helps."""

from __future__ import annotations

import logging
import math
from collections.abc import Awaitable, Callable
from typing import Any, Final

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from chatbot_core.errors import (
    Bug,
    Busy,
    ChatbotError,
    Invalid,
    Unauthenticated,
    Unavailable,
    http_status,
)

log = logging.getLogger(__name__)

MEDIA_TYPE: Final = "application/problem+json"
#: Where a value came from, the first part of a validation error's path.
_PLACES: Final = frozenset({"body", "query", "path", "header"})
_TITLES: Final = {
    400: "Bad request",
    401: "Not logged in",
    403: "Not allowed",
    404: "Not found",
    405: "Method not allowed",
    413: "Too large",
    422: "Not valid",
    429: "Too many tries",
    500: "Internal error",
    503: "Not available now",
}


def problem(error: ChatbotError) -> dict[str, Any]:
    """Return an error as the members of a problem document; a bug's message stays inside."""
    status = http_status(error)
    hidden = isinstance(error, Bug)
    body = _body(status, "the service has a defect; its log has the details" if hidden else error)
    if isinstance(error, Invalid):
        body["field"] = error.field
    if isinstance(error, Busy | Unavailable):
        body["retryAfterSeconds"] = math.ceil(error.retry_after_s)
    return body


def response(body: dict[str, Any]) -> JSONResponse:
    """Return a problem document as a response with the headers that belong to it."""
    headers = {}
    if "retryAfterSeconds" in body:
        headers["Retry-After"] = str(body["retryAfterSeconds"])
    if body["status"] == 401:  # noqa: PLR2004 - RFC 9110 wants the challenge with this status
        headers["WWW-Authenticate"] = "Bearer"
    return JSONResponse(body, body["status"], headers, MEDIA_TYPE)


def install(app: FastAPI) -> None:
    """Answer every error of the application in this form."""
    handlers: dict[Any, Callable[[Request, Any], Awaitable[JSONResponse]]] = {
        ChatbotError: _chatbot_error,
        RequestValidationError: _validation_error,
        HTTPException: _http_error,
        Exception: _defect,
    }
    for kind, handler in handlers.items():
        app.add_exception_handler(kind, handler)


async def _chatbot_error(request: Request, error: ChatbotError) -> JSONResponse:
    if isinstance(error, Bug):
        log.error("bug", extra={"path": request.url.path}, exc_info=error)
    elif not isinstance(error, Unauthenticated):
        log.info("request refused", extra={"path": request.url.path, "why": str(error)})
    return response(problem(error))


async def _validation_error(request: Request, error: RequestValidationError) -> JSONResponse:
    first = error.errors()[0]
    if first["type"] == "json_invalid":
        return response(_body(400, "the body is not JSON"))
    field = ".".join(str(part) for part in first["loc"] if part not in _PLACES)
    body = _body(422, f"{field or 'body'}: {first['msg']}")
    body["field"] = field or "body"
    return response(body)


async def _http_error(request: Request, error: HTTPException) -> JSONResponse:
    answer = response(_body(error.status_code, error.detail))
    answer.headers.update(error.headers or {})
    return answer


async def _defect(request: Request, error: Exception) -> JSONResponse:
    log.error("bug", extra={"path": request.url.path}, exc_info=error)
    return response(problem(Bug(type(error).__name__)))


def _body(status: int, detail: object) -> dict[str, Any]:
    return {
        "type": "about:blank",
        "title": _TITLES.get(status, "Error"),
        "status": status,
        "detail": str(detail),
        # Clients of the OpenAI API look here.
        "error": {"message": str(detail), "type": _TITLES.get(status, "Error"), "code": status},
    }
