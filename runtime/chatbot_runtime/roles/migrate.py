"""The `migrate` role: bring the schema to this image's version and end."""

from __future__ import annotations

import logging
from typing import Final

from chatbot_core import names
from chatbot_core.errors import Unavailable
from chatbot_core.retry import Backoff, Clockwork, Deadline, retry
from chatbot_runtime.adapters import embedder
from chatbot_runtime.adapters.postgres.pool import Database
from chatbot_runtime.adapters.postgres.schema import FirstGeneration, migrate
from chatbot_runtime.roles.clockwork import clockwork
from chatbot_runtime.settings import RuntimeSettings

log = logging.getLogger(__name__)

#: The database of a new cluster may take minutes to come; the Job's own retries follow.
WAIT_S: Final = 300.0


async def run(settings: RuntimeSettings) -> None:
    """Migrate, waiting for the database up to WAIT_S. Raises Invalid or the last Unavailable."""
    first = FirstGeneration(embedder.FINGERPRINT, embedder.DIMENSION, settings.boot.migrate.shards)
    database = Database(settings.secret, settings.secret_path(names.FILE_DATABASE_CA))
    work: Clockwork = clockwork(settings.clock)

    async def attempt() -> int:
        try:
            return await migrate(database, first)
        except Unavailable as error:
            log.info("waiting for the database", extra={"why": str(error)})
            raise

    try:
        deadline = Deadline.after(work.now_s(), WAIT_S)
        before = await retry(attempt, deadline, work, Backoff(base_s=0.2, max_s=3.0))
    finally:
        await database.close()
    log.info("schema ready", extra={"before": before})
