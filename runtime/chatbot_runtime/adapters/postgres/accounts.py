"""Users and sessions; a session is stored as the SHA-256 of its token."""

from __future__ import annotations

from typing import Any, Final

from chatbot_core.errors import Invalid, NotFound, Unauthenticated
from chatbot_runtime.adapters.postgres import rows
from chatbot_runtime.adapters.postgres.pool import Database, storable
from chatbot_runtime.domain.model import User

_INSERT: Final = (
    "INSERT INTO account (user_id, username, workspace, admin, password_hash)"
    " VALUES ($1, $2, $3, $4, $5) ON CONFLICT (username) DO "
)

# The admin of that name, or the first admin under its former name, which it then loses.
_UPDATE_ADMIN: Final = """
UPDATE account SET username = $2, admin = true, password_hash = $3
WHERE user_id = coalesce((SELECT user_id FROM account WHERE username = $2), $1)
RETURNING user_id
"""

_SESSION_USER: Final = """
SELECT a.user_id, a.username, a.workspace, a.admin, a.password_hash
FROM session s JOIN account a ON a.user_id = s.user_id AND a.workspace = s.workspace
WHERE s.token_hash = $1 AND s.expires_at > to_timestamp($2)
"""


class PostgresAccounts:
    """The port `Accounts` over PostgreSQL."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def user(self, username: str) -> User:
        """Return a user by name. Raises NotFound."""
        row = await self._database.fetchrow(
            f"SELECT {rows.USER} FROM account WHERE username = $1",  # noqa: S608 - constant columns
            storable(username),
        )
        if row is None:
            raise NotFound(f"user {username} does not exist")
        return rows.user(row)

    async def put_user(self, user: User) -> None:
        """Insert a user and, where it is new, the workspace. Raises Invalid for a taken name."""
        _check_name(user.username)
        async with self._database.transaction() as connection:
            await _ensure_workspace(connection, user.workspace)
            tag = await connection.execute(_INSERT + "NOTHING", *_columns(user))
        if tag != "INSERT 0 1":
            raise Invalid("username", user.username, "a name that no other user has")

    async def ensure_admin(self, user: User) -> None:
        """Insert the first admin, or give its account the name, the password and the role.

        Sessions that a former password opened end with it.
        """
        _check_name(user.username)
        async with self._database.transaction() as connection:
            await _ensure_workspace(connection, user.workspace)
            known = await connection.fetchval(
                _UPDATE_ADMIN, user.user_id, user.username, user.password_hash
            )
            if known is None:
                await connection.execute(_INSERT + "NOTHING", *_columns(user))
            else:
                await connection.execute("DELETE FROM session WHERE user_id = $1", known)

    async def users(self, workspace: str) -> tuple[User, ...]:
        """Return the users of a workspace by name."""
        found = await self._database.fetch(
            f"SELECT {rows.USER} FROM account WHERE workspace = $1"  # noqa: S608 - constant columns
            ' ORDER BY username COLLATE "C"',
            workspace,
        )
        return tuple(rows.user(row) for row in found)

    async def open_session(self, token_hash: bytes, user_id: str, expires_s: float) -> None:
        """Store a session that ends at `expires_s` (unix); remove those that ended."""
        async with self._database.transaction() as connection:
            await connection.execute("DELETE FROM session WHERE expires_at < now()")
            tag = await connection.execute(
                "INSERT INTO session (token_hash, workspace, user_id, expires_at)"
                " SELECT $1, workspace, user_id, to_timestamp($3) FROM account WHERE user_id = $2",
                token_hash,
                user_id,
                expires_s,
            )
        if tag != "INSERT 0 1":
            raise NotFound(f"user {user_id} does not exist")

    async def session_user(self, token_hash: bytes, now_s: float) -> User:
        """Return the user of a session that has not expired. Raises Unauthenticated."""
        row = await self._database.fetchrow(_SESSION_USER, token_hash, now_s)
        if row is None:
            raise Unauthenticated("session does not exist or has ended; log in again")
        return rows.user(row)

    async def close_session(self, token_hash: bytes) -> None:
        """Remove a session; no effect where it is gone."""
        await self._database.execute("DELETE FROM session WHERE token_hash = $1", token_hash)


def _check_name(username: str) -> None:
    if not username or storable(username) != username:
        raise Invalid("username", username, "text without NUL or broken characters")


def _columns(user: User) -> tuple[object, ...]:
    return (user.user_id, user.username, user.workspace, user.admin, user.password_hash)


async def _ensure_workspace(connection: Any, workspace: str) -> None:
    await connection.execute(
        "INSERT INTO workspace (workspace) VALUES ($1) ON CONFLICT DO NOTHING", workspace
    )
