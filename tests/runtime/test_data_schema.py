"""Migration: idempotent, exclusive, and it names what is missing."""

from __future__ import annotations

import asyncio

import pytest

from chatbot_core.errors import Invalid, Unavailable
from chatbot_core.slots import initial_owners
from chatbot_runtime.adapters.postgres.events import PostgresEventLog
from chatbot_runtime.adapters.postgres.pool import Database
from chatbot_runtime.adapters.postgres.schema import FirstGeneration, migrate, require_schema
from chatbot_runtime.domain.model import Generation, SlotMap

FIRST = FirstGeneration("model-a", 384, 3)


async def use_as_a_role(database: Database) -> None:
    """Ask over a pool as a serving role opens it."""
    judged = Database(database._read_secret, judge=require_schema)
    try:
        assert await judged.fetch("SELECT 1")
    finally:
        await judged.close()


async def test_an_empty_database_says_that_it_is_not_migrated(empty: Database) -> None:
    with pytest.raises(Unavailable, match="not migrated"):
        await use_as_a_role(empty)
    with pytest.raises(Unavailable, match="not migrated"):
        await PostgresEventLog(empty).generation()


async def test_five_migrations_at_once_make_one_schema(empty: Database) -> None:
    pools = [Database(empty._read_secret) for _ in range(5)]
    before = await asyncio.gather(*(migrate(pool, FIRST) for pool in pools))
    for pool in pools:
        await pool.close()
    assert sorted(before) == [0, 1, 1, 1, 1]
    await use_as_a_role(empty)
    log = PostgresEventLog(empty)
    assert await log.generation() == Generation(1, "model-a", 384)
    assert await log.slot_map() == SlotMap(1, initial_owners(3))
    counters = await log.counters(1)
    assert [(c.slot, c.seq, c.digest) for c in counters] == [(slot, 0, 0) for slot in range(1024)]


async def test_another_embedder_is_refused(empty: Database) -> None:
    await migrate(empty, FIRST)
    with pytest.raises(Invalid, match=r"embedder: 'model-b' is not allowed; must be model-a"):
        await migrate(empty, FirstGeneration("model-b", 384, 3))


async def test_a_newer_schema_is_left_alone(empty: Database) -> None:
    await migrate(empty, FIRST)
    await empty.execute("UPDATE setting SET value = '{\"version\": 99}'")
    with pytest.raises(Invalid, match="schema_version: 99 is not allowed"):
        await migrate(empty, FIRST)
    with pytest.raises(Unavailable, match="schema version 99 works from 99 on, this image has 1"):
        await use_as_a_role(empty)


async def test_a_newer_schema_that_works_for_this_image_is_used(empty: Database) -> None:
    await migrate(empty, FIRST)
    stored = '{"version": 2, "works_from": 1}'
    await empty.execute("UPDATE setting SET value = $1::jsonb", stored)
    await use_as_a_role(empty)


async def test_a_role_that_may_not_create_is_told_what_to_grant(empty: Database) -> None:
    await empty.execute("DROP ROLE IF EXISTS reader")
    await empty.execute("CREATE ROLE reader LOGIN")
    dsn = empty._read_secret("database/dsn").replace("postgres@", "reader@")
    reader = Database(lambda _name: dsn)
    with pytest.raises(Invalid, match="GRANT CREATE ON SCHEMA public"):
        await migrate(reader, FIRST)
    await reader.close()


async def test_vectors_stay_inline_and_uncompressed(empty: Database) -> None:
    await migrate(empty, FIRST)
    found = await empty.fetch(
        "SELECT attname, attstorage FROM pg_attribute WHERE attrelid = 'chunk_1'::regclass"
        " AND attname IN ('vector', 'body') ORDER BY attname"
    )
    assert [(row["attname"], row["attstorage"]) for row in found] == [
        ("body", b"e"),
        ("vector", b"p"),
    ]
