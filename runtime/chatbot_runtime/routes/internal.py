"""The routes of the API's internal port: health, and the status that the operator reads."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from chatbot_core.errors import ChatbotError, Unauthenticated
from chatbot_runtime.routes import problems
from chatbot_runtime.services.health import Health


def internal_routes(health: Health, token: Callable[[], str]) -> list[Route]:
    """Return the routes; `token` reads the internal token as it is now."""

    async def plain(request: Request) -> Response:
        return JSONResponse({"status": "ok"})

    async def detail(request: Request) -> Response:
        return JSONResponse(await health.detail(request.query_params.get("name", "")))

    async def status(request: Request) -> Response:
        try:
            _check_token(request, token())
        except ChatbotError as error:
            return problems.response(problems.problem(error))
        document = await health.status()
        # Ages change at every reading and say nothing new while the members are the same.
        members = tuple(member.model_copy(update={"age_s": 0.0}) for member in document.members)
        lasting = document.model_copy(update={"members": members})
        etag = f'"{hashlib.sha256(lasting.model_dump_json().encode()).hexdigest()[:32]}"'
        if request.headers.get("if-none-match") == etag:
            return Response(status_code=304, headers={"ETag": etag})
        content = document.model_dump_json()
        return Response(content, media_type="application/json", headers={"ETag": etag})

    return [
        Route("/health", plain),
        Route("/health/detail", detail),
        Route("/internal/status", status),
    ]


def _check_token(request: Request, expected: str) -> None:
    kind, _, given = request.headers.get("authorization", "").partition(" ")
    same = hmac.compare_digest(given.encode(), expected.encode())
    if kind.lower() != "bearer" or not expected or not same:
        raise Unauthenticated("the internal token is missing or wrong")
