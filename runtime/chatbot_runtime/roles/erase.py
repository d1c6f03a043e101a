"""The `erase` role: empty the buckets' prefixes, drop the tables, and end.

It removes what the boot section names and nothing else, documents first: as long as the tables
stand, they tell what was there. Every step may be repeated after a kill.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final

from chatbot_core import names
from chatbot_core.errors import Unavailable
from chatbot_core.retry import Backoff, Deadline, retry
from chatbot_runtime.adapters.postgres.pool import Database
from chatbot_runtime.adapters.postgres.removal import drop_tables
from chatbot_runtime.adapters.s3 import S3Blobs
from chatbot_runtime.roles.clockwork import clockwork
from chatbot_runtime.roles.stores import make_stores
from chatbot_runtime.settings import RuntimeSettings

log = logging.getLogger(__name__)

#: An outside world may be away for a while; the Job's own retries follow.
WAIT_S: Final = 300.0


async def run(settings: RuntimeSettings) -> None:
    """Erase, waiting for each outside world up to WAIT_S. Raises Invalid or Unavailable."""
    boot = settings.boot.erase
    for store in make_stores(settings, boot.stores).values():
        if isinstance(store, S3Blobs):
            await _patiently(settings, partial(_empty, store))
    if boot.database:
        database = Database(settings.secret, settings.secret_path(names.FILE_DATABASE_CA))
        try:
            await _patiently(settings, partial(_drop, database))
        finally:
            await database.close()


async def _empty(store: S3Blobs) -> None:
    """Erase until a whole look finds nothing more. Raises Unavailable for what stays."""
    while True:
        done = await store.erase()
        log.info(
            "documents erased",
            extra={
                "store": store.name,
                "objects": done.objects,
                "uploads": done.uploads,
                "left_to_others": done.kept,
                "first_left": done.first_kept,
            },
        )
        if done.failed:
            raise Unavailable(f"document store {store.name}", done.failed)
        if not done.objects and not done.uploads:
            return


async def _drop(database: Database) -> None:
    if not await drop_tables(database):
        log.info("no tables to drop")


async def _patiently(settings: RuntimeSettings, attempt: Callable[[], Awaitable[None]]) -> None:
    work = clockwork(settings.clock)
    deadline = Deadline.after(work.now_s(), WAIT_S)

    async def logged() -> None:
        try:
            await attempt()
        except Unavailable as error:
            log.info("waiting", extra={"why": str(error)})
            raise

    await retry(logged, deadline, work, Backoff(base_s=0.2, max_s=3.0))
