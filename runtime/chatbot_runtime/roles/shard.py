"""The `shard` role: follow the log, hold the slots of one shard, answer questions."""

from __future__ import annotations

import contextlib
from typing import Final

from prometheus_client import Gauge

from chatbot_core import names
from chatbot_runtime.adapters.faiss_index import FaissIndex
from chatbot_runtime.adapters.postgres.events import PostgresEventLog
from chatbot_runtime.adapters.postgres.members import PostgresMembers
from chatbot_runtime.adapters.shard_server import serve_shard
from chatbot_runtime.background import background
from chatbot_runtime.domain.model import Generation
from chatbot_runtime.internal_http import serve_internal
from chatbot_runtime.roles.database import judged_database
from chatbot_runtime.services.members import Heartbeat
from chatbot_runtime.services.shard import Shard
from chatbot_runtime.settings import RuntimeSettings

_ROLE: Final = names.Role.SHARD
_CONNECTIONS: Final = 2  # one follows the log, one beats

_ROWS: Final = Gauge("chatbot_shard_rows", "Live rows in the index")
_STORED: Final = Gauge("chatbot_shard_stored_rows", "Rows that take memory, dead ones among them")
_LOADED: Final = Gauge("chatbot_shard_loaded_slots", "Slots that are loaded")
_HELD: Final = Gauge("chatbot_shard_held_slots", "Slots that the slot map gives this shard")


async def run(settings: RuntimeSettings, index: int) -> None:
    """Serve shard `index` until told to stop. Raises Unavailable where a port is taken."""
    database = judged_database(settings, _CONNECTIONS)
    shard = Shard(index, PostgresEventLog(database), _make_index, settings.clock)
    _measure(shard)
    boot = settings.boot.shard
    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(database.close)
        port = await stack.enter_async_context(
            serve_shard(
                shard,
                lambda: settings.secret(names.FILE_INTERNAL_TOKEN),
                settings.bind_host,
                boot.port,
            )
        )
        await stack.enter_async_context(
            serve_internal(boot.internal_port, shard.ready, host=settings.bind_host)
        )
        heartbeat = Heartbeat(
            PostgresMembers(database),
            settings,
            _ROLE,
            _address(settings.address, port),
            shard.ready,
            shard.report,
            lambda: shard.epoch,
            shard=index,
        )
        stack.push_async_callback(heartbeat.leave)
        async with background(shard.follow(), heartbeat.run()):
            await settings.stopping.wait()


def _make_index(generation: Generation) -> FaissIndex:
    return FaissIndex(generation.dimension)


def _address(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _measure(shard: Shard) -> None:
    """Let the metrics be read from the shard when they are asked for."""

    def rows() -> float:
        return shard.index.rows if isinstance(shard.index, FaissIndex) else 0

    def stored() -> float:
        return shard.index.stored_rows if isinstance(shard.index, FaissIndex) else 0

    _ROWS.set_function(rows)
    _STORED.set_function(stored)
    _LOADED.set_function(lambda: len(shard.holdings.ready))
    _HELD.set_function(lambda: len(shard.holdings.held))
