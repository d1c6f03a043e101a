"""The application on the public port."""

from __future__ import annotations

from typing import Any, Final

from fastapi import APIRouter, FastAPI
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from chatbot_runtime.routes import auth, chat, documents, openai, problems
from chatbot_runtime.routes.bodies import BoundedBodies
from chatbot_runtime.routes.context import AdminDependency, ApiServices, Services
from chatbot_runtime.services.stages import REQUESTS

API_VERSION: Final = "v1"

router = APIRouter()


@router.get("/health")
async def health() -> dict[str, str]:
    """Say that the process answers."""
    return {"status": "ok"}


@router.get("/health/detail")
async def health_detail(
    caller: AdminDependency, services: Services, name: str = ""
) -> dict[str, Any]:
    """Return components and durations of the last 15 minutes (admins only)."""
    return await services.health.detail(name)


@router.delete("/health/detail/metrics", status_code=204)
async def clear_metrics(caller: AdminDependency, services: Services) -> None:
    """Forget the durations of this process (admins only)."""
    services.health.clear()


class _Counted:
    """ASGI middleware that counts requests by route template and status."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status = 500

        async def counted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, counted)
        finally:
            route = getattr(scope.get("route"), "path", "none")
            REQUESTS.labels(scope["method"], route, str(status)).inc()


def create_app(services: ApiServices) -> FastAPI:
    """Return the application over its services; only the OpenAPI description is public."""
    app = FastAPI(
        title="chatbot",
        version=API_VERSION,
        docs_url=None,
        redoc_url=None,
        openapi_url="/openapi.json",
    )
    app.state.services = services
    problems.install(app)
    for part in (router, auth.router, documents.router, chat.router, openai.router):
        app.include_router(part)
    app.add_middleware(BoundedBodies)
    app.add_middleware(_Counted)
    return app
