"""The database as every serving role opens it: refused until its schema fits this image."""

from __future__ import annotations

from chatbot_core import names
from chatbot_runtime.adapters.postgres.pool import (
    MAX_CONNECTIONS,
    STATEMENT_TIMEOUT_S,
    Database,
)
from chatbot_runtime.adapters.postgres.schema import require_schema
from chatbot_runtime.settings import RuntimeSettings


def judged_database(
    settings: RuntimeSettings,
    max_connections: int = MAX_CONNECTIONS,
    statement_timeout_s: float = STATEMENT_TIMEOUT_S,
) -> Database:
    """Return the database of a role; each of its connections has seen the schema it needs."""
    return Database(
        settings.secret,
        settings.secret_path(names.FILE_DATABASE_CA),
        max_connections,
        statement_timeout_s,
        require_schema,
    )
