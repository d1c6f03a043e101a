"""Heartbeats of every process, stamped by the database's clock."""

from __future__ import annotations

import json
from typing import Final

from chatbot_runtime.adapters.postgres import rows
from chatbot_runtime.adapters.postgres.pool import Database
from chatbot_runtime.domain.model import MemberRow

# A process that died leaves its row; nobody reads one that is an hour old.
_BEAT: Final = """
WITH forgotten AS (DELETE FROM member WHERE seen_at < now() - interval '1 hour')
INSERT INTO member (role, name, address, started_at, version, config_hash, epoch, ready, reason,
                    shard, report, seen_at)
VALUES ($1, $2, $3, to_timestamp($4), $5, $6, $7, $8, $9, $10, $11::jsonb, now())
ON CONFLICT (role, name) DO UPDATE
SET address = excluded.address, started_at = excluded.started_at, version = excluded.version,
    config_hash = excluded.config_hash, epoch = excluded.epoch, ready = excluded.ready,
    reason = excluded.reason, shard = excluded.shard, report = excluded.report, seen_at = now()
"""

_LIVE: Final = """
SELECT role, name, address, extract(epoch FROM started_at)::float8 AS started_s, version,
       config_hash, epoch, ready, reason, shard, report,
       greatest(0, extract(epoch FROM now() - seen_at))::float8 AS age_s
FROM member WHERE seen_at > now() - $1 * interval '1 second'
ORDER BY role COLLATE "C", name COLLATE "C"
"""


class PostgresMembers:
    """The port `Members` over PostgreSQL."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def beat(self, row: MemberRow) -> None:
        """Insert or update this process's row."""
        await self._database.execute(
            _BEAT,
            row.role,
            row.name,
            row.address,
            row.started_s,
            row.version,
            row.config_hash,
            row.epoch,
            row.ready,
            row.reason,
            row.shard,
            json.dumps(row.report),
        )

    async def leave(self, role: str, name: str) -> None:
        """Remove this process's row at a clean end."""
        await self._database.execute("DELETE FROM member WHERE role = $1 AND name = $2", role, name)

    async def live(self, max_age_s: float) -> tuple[MemberRow, ...]:
        """Return the rows younger than `max_age_s`, by role and name."""
        return tuple(rows.member(row) for row in await self._database.fetch(_LIVE, max_age_s))
