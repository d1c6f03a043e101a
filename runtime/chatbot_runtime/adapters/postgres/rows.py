"""Rows to the domain's values."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from chatbot_runtime.domain.model import Document, DocumentState, Job, MemberRow, User

DOCUMENT: Final = (
    "doc_no, doc_id, workspace, name, media_type, size_bytes, sha256, store, object_id, slot, ver,"
    " state, error, chunks, extract(epoch FROM created_at)::float8 AS created_at_s"
)
USER: Final = "user_id, username, workspace, admin, password_hash"


def document(row: Mapping[str, Any]) -> Document:
    """Return a row of DOCUMENT."""
    values = dict(row)
    return Document(**(values | {"state": DocumentState(values["state"])}))


def job(row: Mapping[str, Any]) -> Job:
    """Return a taken job; `payload` comes as JSON text."""
    values = dict(row)
    return Job(**(values | {"payload": json.loads(values["payload"])}))


def user(row: Mapping[str, Any]) -> User:
    """Return a row of USER."""
    return User(**dict(row))


def member(row: Mapping[str, Any]) -> MemberRow:
    """Return a heartbeat; `report` comes as JSON text."""
    values = dict(row)
    return MemberRow(**(values | {"report": json.loads(values["report"])}))
