"""Reads RuntimeStatus from an API pod's internal port."""

from __future__ import annotations

from dataclasses import dataclass
from http import HTTPStatus
from typing import Final, Protocol

import httpx
from pydantic import ValidationError

from chatbot_core import names
from chatbot_core.errors import Unavailable
from chatbot_core.runtime_config import RuntimeStatus

TIMEOUT_S: Final = 3.0
MAX_BYTES: Final = 1024 * 1024


@dataclass(frozen=True, slots=True)
class StatusAnswer:
    """A new status and its tag, or None where the one we hold still stands."""

    status: RuntimeStatus | None
    etag: str


class RuntimeClient(Protocol):
    """What the shell needs of the runtime."""

    async def status(self, address: str, token: str, etag: str) -> StatusAnswer:
        """Return the status at a pod's address. Raises Unavailable."""
        ...


class HttpRuntimeClient:
    """`RuntimeClient` over HTTP with the token between processes and `If-None-Match`."""

    def __init__(self, http: httpx.AsyncClient, port: int = names.PORT_INTERNAL) -> None:
        self._http = http
        self._port = port

    async def status(self, address: str, token: str, etag: str) -> StatusAnswer:
        """See `RuntimeClient.status`; an answer that is no RuntimeStatus is Unavailable too."""
        host = f"[{address}]" if ":" in address else address
        headers = {"Authorization": f"Bearer {token}"}
        if etag:
            headers["If-None-Match"] = etag
        try:
            answer = await self._http.get(
                f"http://{host}:{self._port}/internal/status", headers=headers, timeout=TIMEOUT_S
            )
        except httpx.HTTPError as error:
            raise Unavailable("runtime", type(error).__name__) from error
        if answer.status_code == HTTPStatus.NOT_MODIFIED:
            return StatusAnswer(None, etag)
        if answer.status_code != HTTPStatus.OK or len(answer.content) > MAX_BYTES:
            raise Unavailable("runtime", f"status {answer.status_code}")
        try:
            status = RuntimeStatus.model_validate_json(answer.content)
        except ValidationError as error:
            raise Unavailable("runtime", "its answer is no RuntimeStatus of version 1") from error
        return StatusAnswer(status, answer.headers.get("ETag", ""))


def new_http() -> httpx.AsyncClient:
    """Return the connection pool: pods are spoken to directly, never through a proxy."""
    return httpx.AsyncClient(trust_env=False, follow_redirects=False)
