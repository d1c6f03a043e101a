"""What every route needs: the services of the process and who calls."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, cast

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from chatbot_core.errors import Denied, Unauthenticated
from chatbot_core.runtime_config import Live
from chatbot_runtime.domain.model import Caller
from chatbot_runtime.ports import Clock, Embedder, LanguageModel
from chatbot_runtime.services.accounts import AccountService
from chatbot_runtime.services.documents import DocumentService
from chatbot_runtime.services.health import Health
from chatbot_runtime.services.questions import Questions

_BEARER = HTTPBearer(auto_error=False, description="The token that POST /api/auth/login returns")


@dataclass(frozen=True, slots=True)
class ApiServices:
    """The services behind the public port."""

    accounts: AccountService
    documents: DocumentService
    questions: Questions
    health: Health
    embedder: Embedder
    model: LanguageModel
    clock: Clock
    live: Callable[[], Live]


def services_of(request: Request) -> ApiServices:
    """Return the services that the application was made with."""
    return cast("ApiServices", request.app.state.services)


Services = Annotated[ApiServices, Depends(services_of)]
Credentials = Annotated[HTTPAuthorizationCredentials | None, Depends(_BEARER)]


def token_of(credentials: Credentials) -> str:
    """Return the bearer token. Raises Unauthenticated where there is none."""
    if credentials is None or not credentials.credentials:
        raise Unauthenticated("no session; log in and send Authorization: Bearer <token>")
    return credentials.credentials


BearerToken = Annotated[str, Depends(token_of)]


async def caller_of(services: Services, token: BearerToken) -> Caller:
    """Return who calls. Raises Unauthenticated."""
    return await services.accounts.caller(token)


CallerDependency = Annotated[Caller, Depends(caller_of)]


async def admin_of(caller: CallerDependency) -> Caller:
    """Return who calls, an admin. Raises Denied."""
    if not caller.admin:
        raise Denied("only an admin may do this")
    return caller


AdminDependency = Annotated[Caller, Depends(admin_of)]
