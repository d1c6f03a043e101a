"""Login, logout, who am I, and the admin's user list."""

from __future__ import annotations

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field

from chatbot_runtime.domain.model import Caller, User
from chatbot_runtime.routes.context import BearerToken, CallerDependency, Services

router = APIRouter(prefix="/api")


class Login(BaseModel):
    """Credentials."""

    model_config = ConfigDict(extra="forbid")
    username: str = Field(min_length=1, max_length=63)
    password: str = Field(min_length=1, max_length=256)


class Session(BaseModel):
    """A bearer token; `expiresAt` in Unix seconds."""

    token: str
    expiresAt: int  # noqa: N815 - JSON's own case


class NewUser(BaseModel):
    """A user to be made by an admin, in the admin's workspace."""

    model_config = ConfigDict(extra="forbid")
    username: str = Field(min_length=1, max_length=63)
    password: str = Field(min_length=1, max_length=256)
    admin: bool = False


class UserShown(BaseModel):
    """A user as people see one."""

    id: str
    username: str
    workspace: str
    admin: bool


class UserList(BaseModel):
    """The users of a workspace."""

    items: list[UserShown]


@router.post("/auth/login")
async def login(body: Login, services: Services) -> Session:
    """Open a session of 24 hours."""
    token, expires_s = await services.accounts.login(body.username, body.password)
    return Session(token=token, expiresAt=int(expires_s))


@router.post("/auth/logout", status_code=204)
async def logout(token: BearerToken, services: Services) -> None:
    """End the session of the token."""
    await services.accounts.logout(token)


@router.get("/me")
async def me(caller: CallerDependency) -> UserShown:
    """Return who the token belongs to."""
    return _shown(caller)


@router.post("/users", status_code=201)
async def create_user(body: NewUser, caller: CallerDependency, services: Services) -> UserShown:
    """Make a user (admins only)."""
    user = await services.accounts.create(caller, body.username, body.password, body.admin)
    return _shown(user)


@router.get("/users")
async def list_users(caller: CallerDependency, services: Services) -> UserList:
    """List the users of the workspace (admins only)."""
    return UserList(items=[_shown(user) for user in await services.accounts.users(caller)])


def _shown(user: User | Caller) -> UserShown:
    return UserShown(
        id=user.user_id, username=user.username, workspace=user.workspace, admin=user.admin
    )
