"""The schema: what the product relies on is probed, then migrations are applied in order.

Every step is safe to repeat and to run twice at once: an advisory lock of the database lets one
process work while the others wait, and what is there is left as it is.
"""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from importlib import resources
from typing import Any, Final

from chatbot_core.errors import Invalid, Unavailable
from chatbot_core.slots import SLOT_COUNT, initial_owners
from chatbot_runtime.adapters.postgres.pool import Database

log = logging.getLogger(__name__)

SCHEMA_VERSION: Final = 1
#: For each version of the schema the oldest version whose images still work with it.
WORKS_FROM: Final = {1: 1}
OLDEST_SERVER: Final = 140000
FIRST_GENERATION: Final = 1
LOCK: Final = 0x63626332  # "cbc2": any number that other users of the database do not take


@dataclass(frozen=True, slots=True)
class FirstGeneration:
    """What a new database is made with; an existing one must have been made with the same."""

    fingerprint: str
    dimension: int
    shards: int


async def migrate(database: Database, first: FirstGeneration) -> int:
    """Bring the schema to SCHEMA_VERSION and return the version found before, 0 for none.

    Raises Invalid, naming it, for what the server lacks, for a newer schema and for an embedder
    other than the one whose vectors are stored.
    """
    async with database.connection() as connection, database.connection() as witness:
        await connection.execute("SELECT pg_advisory_lock($1)", LOCK)
        try:
            await _probe(connection, witness)
            before, _ = await versions(connection)
            if before > SCHEMA_VERSION:
                raise Invalid(
                    "schema_version", before, f"at most {SCHEMA_VERSION}: use a newer runtime image"
                )
            for version in range(before + 1, SCHEMA_VERSION + 1):
                await _apply(connection, version)
            await _first_rows(connection, first)
        finally:
            await connection.execute("SELECT pg_advisory_unlock($1)", LOCK)
    return before


async def require_schema(connection: Any) -> None:
    """Raise Unavailable, with the reason, on a connection whose schema this image cannot use.

    A newer schema is good as long as it states that it still works for images of ours: that is
    how roles of the former version go on while a rollout replaces them one after the other.
    """
    found, works_from = await versions(connection)
    if found < SCHEMA_VERSION:
        reason = f"schema not migrated yet: version {found}, this image needs {SCHEMA_VERSION}"
        raise Unavailable("database", reason)
    if works_from > SCHEMA_VERSION:
        raise Unavailable(
            "database",
            f"schema version {found} works from {works_from} on, this image has {SCHEMA_VERSION}",
        )


async def _probe(connection: Any, witness: Any) -> None:
    """Raise Invalid that names the first thing we rely on and do not find."""
    settings = connection.get_settings()
    number = int(await connection.fetchval("SHOW server_version_num"))
    if number < OLDEST_SERVER:
        raise Invalid("PostgreSQL version", settings.server_version, "14 or newer")
    encoding = await connection.fetchval("SHOW server_encoding")
    if encoding != "UTF8":
        raise Invalid("database encoding", encoding, "UTF8")
    if await witness.fetchval("SELECT pg_try_advisory_lock($1)", LOCK):
        raise Invalid("advisory locks", "a lock that is held was given twice", "real locks")
    if await connection.fetchval("SELECT (-5)::bigint # 3::bigint") != -5 ^ 3:
        raise Invalid("operator #", "bigint # bigint", "exclusive or of 64-bit numbers")
    await connection.fetchval("SELECT gen_random_uuid()")
    if not await connection.fetchval("SELECT has_schema_privilege(current_schema(), 'CREATE')"):
        raise Invalid("role", await connection.fetchval("SELECT current_user"), _GRANT)
    await _probe_transactions(connection, witness)


_GRANT: Final = "a role with CREATE on its schema: GRANT CREATE ON SCHEMA public TO the role"


async def _probe_transactions(connection: Any, witness: Any) -> None:
    """Two sessions on a scratch table: SKIP LOCKED skips, a snapshot stays."""
    await connection.execute(
        "DROP TABLE IF EXISTS chatbot_probe; CREATE TABLE chatbot_probe AS SELECT 1 AS id"
    )
    try:
        async with connection.transaction():
            await connection.execute("SELECT id FROM chatbot_probe FOR UPDATE")
            if await witness.fetch("SELECT id FROM chatbot_probe FOR UPDATE SKIP LOCKED"):
                raise Invalid("SKIP LOCKED", "a locked row was returned", "locked rows skipped")
        async with witness.transaction(isolation="repeatable_read", readonly=True):
            before = await witness.fetchval("SELECT id FROM chatbot_probe")
            await connection.execute("UPDATE chatbot_probe SET id = 2")
            if await witness.fetchval("SELECT id FROM chatbot_probe") != before:
                raise Invalid("REPEATABLE READ", "a snapshot that moved", "one stable snapshot")
    finally:
        await connection.execute("DROP TABLE chatbot_probe")


async def versions(connection: Any) -> tuple[int, int]:
    """Return the schema's version and the oldest one whose images work with it; 0, 0 for none."""
    if await connection.fetchval("SELECT to_regclass('setting')") is None:
        return 0, 0
    value = await connection.fetchval("SELECT value FROM setting WHERE key = 'schema_version'")
    stored = json.loads(value) if value else {"version": 0}
    return int(stored["version"]), int(stored.get("works_from", stored["version"]))


async def _apply(connection: Any, version: int) -> None:
    script = resources.files("chatbot_runtime").joinpath("migrations", f"{version:04}.sql")
    async with connection.transaction():
        await connection.execute(script.read_text(encoding="utf-8"))
        await connection.execute(
            "INSERT INTO setting (key, value) VALUES ('schema_version', $1::jsonb)"
            " ON CONFLICT (key) DO UPDATE SET value = excluded.value, changed_at = now()",
            json.dumps({"version": version, "works_from": WORKS_FROM[version]}),
        )
    log.info("schema migrated", extra={"version": version})


async def _first_rows(connection: Any, first: FirstGeneration) -> None:
    """Insert the first generation with its partition, counters and the slot map, once."""
    found = await connection.fetchrow("SELECT fingerprint, dimension FROM generation WHERE reads")
    if found is not None:
        if (found["fingerprint"], found["dimension"]) != (first.fingerprint, first.dimension):
            raise Invalid(
                "embedder",
                first.fingerprint,
                f"{found['fingerprint']} with {found['dimension']} dimensions, which made the"
                " stored vectors: use the runtime image that was used before",
            )
        return
    async with connection.transaction():
        await connection.execute(
            f"CREATE TABLE chunk_{FIRST_GENERATION} PARTITION OF chunk"
            f" FOR VALUES IN ({FIRST_GENERATION})"
        )
        await connection.execute(
            "INSERT INTO generation (gen, fingerprint, dimension, reads) VALUES ($1, $2, $3, true)",
            FIRST_GENERATION,
            first.fingerprint,
            first.dimension,
        )
        await connection.execute(
            "INSERT INTO slot_seq (gen, slot) SELECT $1, generate_series(0, $2 - 1)",
            FIRST_GENERATION,
            SLOT_COUNT,
        )
        await connection.execute(
            "INSERT INTO slot_map (epoch, owners) VALUES (1, $1)", initial_owners(first.shards)
        )
    log.info("first generation made", extra={"shards": first.shards})
