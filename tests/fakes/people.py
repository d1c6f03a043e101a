"""Accounts, members and settings in memory: what PostgreSQL promises of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from fakes.data import ManualClock

from chatbot_core.errors import Invalid, NotFound, Unauthenticated
from chatbot_runtime.domain.model import (
    MemberRow,
    User,
)


class FakeAccounts:
    """The port `Accounts` in memory."""

    def __init__(self) -> None:
        self._users: dict[str, User] = {}
        self._sessions: dict[bytes, tuple[str, float]] = {}

    async def user(self, username: str) -> User:
        if username not in self._users:
            raise NotFound(f"user {username} does not exist")
        return self._users[username]

    async def put_user(self, user: User) -> None:
        if user.username in self._users:
            raise Invalid("username", user.username, "a name that no other user has")
        self._users[user.username] = user

    async def ensure_admin(self, user: User) -> None:
        same_id = (one for one in self._users.values() if one.user_id == user.user_id)
        known = self._users.get(user.username) or next(same_id, user)
        self._users.pop(known.username, None)
        self._users[user.username] = replace(
            known, username=user.username, admin=True, password_hash=user.password_hash
        )
        for token in [t for t, (owner, _) in self._sessions.items() if owner == known.user_id]:
            del self._sessions[token]

    async def users(self, workspace: str) -> tuple[User, ...]:
        mine = [user for user in self._users.values() if user.workspace == workspace]
        return tuple(sorted(mine, key=lambda user: user.username))

    async def open_session(self, token_hash: bytes, user_id: str, expires_s: float) -> None:
        if not any(user.user_id == user_id for user in self._users.values()):
            raise NotFound(f"user {user_id} does not exist")
        self._sessions[token_hash] = (user_id, expires_s)

    async def session_user(self, token_hash: bytes, now_s: float) -> User:
        user_id, expires_s = self._sessions.get(token_hash, ("", 0.0))
        for user in self._users.values():
            if user.user_id == user_id and expires_s > now_s:
                return user
        raise Unauthenticated("session does not exist or has ended; log in again")

    async def close_session(self, token_hash: bytes) -> None:
        self._sessions.pop(token_hash, None)


class FakeMembers:
    """The port `Members` in memory."""

    def __init__(self, clock: ManualClock) -> None:
        self._clock = clock
        self._rows: dict[tuple[str, str], tuple[MemberRow, float]] = {}

    async def beat(self, row: MemberRow) -> None:
        self._rows[row.role, row.name] = (row, self._clock.now_s)

    async def leave(self, role: str, name: str) -> None:
        self._rows.pop((role, name), None)

    async def live(self, max_age_s: float) -> tuple[MemberRow, ...]:
        now_s = self._clock.now_s
        return tuple(
            replace(row, age_s=now_s - seen_s)
            for _, (row, seen_s) in sorted(self._rows.items())
            if now_s - seen_s < max_age_s
        )


class FakeSettings:
    """The port `Settings` in memory."""

    def __init__(self) -> None:
        self._values: dict[str, dict[str, object]] = {}

    async def read(self, key: str) -> dict[str, object] | None:
        return self._values.get(key)

    async def write(self, key: str, value: Mapping[str, object]) -> None:
        self._values[key] = dict(value)
