"""Small persistent facts, one JSON value a key."""

from __future__ import annotations

import json
from collections.abc import Mapping

from chatbot_runtime.adapters.postgres.pool import Database


class PostgresSettings:
    """The port `Settings` over PostgreSQL."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def read(self, key: str) -> dict[str, object] | None:
        """Return a value, or None."""
        row = await self._database.fetchrow("SELECT value FROM setting WHERE key = $1", key)
        if row is None:
            return None
        value: dict[str, object] = json.loads(row["value"])
        return value

    async def write(self, key: str, value: Mapping[str, object]) -> None:
        """Insert or replace a value."""
        await self._database.execute(
            "INSERT INTO setting (key, value) VALUES ($1, $2::jsonb)"
            " ON CONFLICT (key) DO UPDATE SET value = excluded.value, changed_at = now()",
            key,
            json.dumps(dict(value)),
        )
