"""Background work under leases, taken with SKIP LOCKED; times are the database's own."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Final

from chatbot_runtime.adapters.postgres import rows
from chatbot_runtime.adapters.postgres.pool import Database, storable
from chatbot_runtime.domain.model import Job

_TAKE: Final = """
WITH due AS MATERIALIZED (
    SELECT id FROM job
    WHERE kind = ANY($1::text[]) AND failed_at IS NULL AND run_after <= now()
      AND (lease_until IS NULL OR lease_until < now())
    ORDER BY priority, run_after, id LIMIT 1 FOR UPDATE SKIP LOCKED)
UPDATE job SET token = gen_random_uuid()::text, attempts = attempts + 1,
               lease_until = now() + $2 * interval '1 second'
FROM due WHERE job.id = due.id
RETURNING job.id, kind, key, workspace, attempts, token, payload
"""


class PostgresJobs:
    """The port `Jobs` over PostgreSQL."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def enqueue(
        self, kind: str, key: str, workspace: str, payload: Mapping[str, object], run_after_s: float
    ) -> bool:
        """Insert a job that is due in `run_after_s` seconds, unless an unfinished one exists."""
        inserted = await self._database.execute(
            "INSERT INTO job (kind, key, workspace, payload, run_after)"
            " VALUES ($1, $2, $3, $4::jsonb, now() + $5 * interval '1 second')"
            " ON CONFLICT (kind, key) WHERE failed_at IS NULL DO NOTHING",
            kind,
            key,
            workspace,
            json.dumps(dict(payload)),
            run_after_s,
        )
        return inserted == 1

    async def take(self, kinds: Sequence[str], lease_s: float) -> Job | None:
        """Take the next due job under a new token, or None."""
        row = await self._database.fetchrow(_TAKE, [str(kind) for kind in kinds], lease_s)
        return None if row is None else rows.job(row)

    async def renew(self, job: Job, lease_s: float, progress: str) -> bool:
        """Extend the lease; False when another worker holds the job now."""
        return await self._held(
            "UPDATE job SET lease_until = now() + $3 * interval '1 second', progress = $4",
            job,
            lease_s,
            storable(progress),
        )

    async def finish(self, job: Job) -> bool:
        """Remove a done job; False when the token is no longer ours."""
        return await self._held("DELETE FROM job", job)

    async def fail(self, job: Job, error: str, retry_after_s: float | None) -> bool:
        """Record a failure and run again in `retry_after_s` seconds, or never where it is None."""
        if retry_after_s is None:
            return await self._held(
                "UPDATE job SET failed_at = now(), token = NULL, lease_until = NULL, error = $3",
                job,
                storable(error),
            )
        return await self._held(
            "UPDATE job SET run_after = now() + $4 * interval '1 second', token = NULL,"
            " lease_until = NULL, error = $3",
            job,
            storable(error),
            retry_after_s,
        )

    async def give_back(self, job: Job, why: str, wait_s: float) -> bool:
        """Let the job run again in `wait_s` seconds; this try does not count as an attempt."""
        return await self._held(
            "UPDATE job SET run_after = now() + $4 * interval '1 second', token = NULL,"
            " lease_until = NULL, error = $3, attempts = attempts - 1",
            job,
            storable(why),
            wait_s,
        )

    async def _held(self, statement: str, job: Job, *values: object) -> bool:
        where = " WHERE id = $1 AND token = $2 AND failed_at IS NULL"
        return await self._database.execute(statement + where, job.id, job.token, *values) == 1
