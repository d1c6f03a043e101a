"""Drops what migrations made, and nothing else: the schema itself belongs to its owner."""

from __future__ import annotations

import logging
from typing import Any, Final

import asyncpg

from chatbot_core.errors import Invalid
from chatbot_runtime.adapters.postgres.pool import Database
from chatbot_runtime.adapters.postgres.schema import LOCK, SCHEMA_VERSION, versions

log = logging.getLogger(__name__)

#: Every table of the newest schema; partitions go with theirs.
TABLES: Final = (
    *("session", "account", "workspace", "upload_key", "document", "job"),
    *("chunk", "doc_event", "slot_seq", "slot_map", "generation", "member", "setting"),
)
#: A table that somebody still reads is tried again later, not waited for.
_LOCK_WAIT: Final = "SET LOCAL lock_timeout = '10s'"


async def drop_tables(database: Database) -> bool:
    """Drop all tables in one transaction; False where there are none. Raises Invalid, Unavailable.

    A table of one of these names is ours when the record of our schema stands beside it: the
    migration made all of them in one transaction, and would have failed on a name that was taken.
    """
    async with database.connection() as connection:
        await connection.execute("SELECT pg_advisory_lock($1)", LOCK)
        try:
            found, _ = await versions(connection)
            if found == 0:
                return False
            if found > SCHEMA_VERSION:
                allowed = f"at most {SCHEMA_VERSION}: a newer runtime image knows its tables"
                raise Invalid("schema_version", found, allowed)
            async with connection.transaction():
                await connection.execute(_LOCK_WAIT)
                await _drop(connection)
        finally:
            await connection.execute("SELECT pg_advisory_unlock($1)", LOCK)
    log.info("tables dropped", extra={"tables": len(TABLES)})
    return True


async def _drop(connection: Any) -> None:
    try:
        await connection.execute(f"DROP TABLE {', '.join(TABLES)}")
    except asyncpg.DependentObjectsStillExistError as error:
        allowed = "nothing of others: drop what depends on it"
        raise Invalid("tables", error.detail or str(error), allowed) from error
