"""Wait until the whole service is ready, as its own status document says."""

from __future__ import annotations

import asyncio
import http.client
import time
from collections import Counter
from collections.abc import Sequence
from typing import Final

from pydantic import ValidationError

from chatbot_core.errors import Unavailable
from chatbot_core.names import Role
from chatbot_core.runtime_config import RuntimeStatus

#: From nothing to ready takes seconds; a slow disk or a busy machine may need more.
START_S: Final = 120.0
_POLL_S: Final = 0.1


async def until_ready(internal_port: int, token: str, roles: Sequence[Role]) -> None:
    """Return when a ready process of each role reports itself, several where named so often.

    Raises Unavailable after START_S with what is still missing.
    """
    wanted = Counter(role.value for role in roles)
    ends_s = time.monotonic() + START_S
    while missing := await asyncio.to_thread(_missing, internal_port, token, wanted):
        if time.monotonic() > ends_s:
            raise Unavailable("demo", f"not ready after {START_S:.0f} s: {missing}")
        await asyncio.sleep(_POLL_S)


def _missing(port: int, token: str, wanted: Counter[str]) -> str:
    """Return in words what is not ready yet, empty when all is."""
    try:
        status = RuntimeStatus.model_validate_json(_status(port, token))
    except (OSError, http.client.HTTPException, ValidationError) as error:
        return f"the API's status ({type(error).__name__})"
    ready = Counter(member.role for member in status.members if member.ready)
    reasons = {member.role: member.reason for member in status.members if not member.ready}
    return ", ".join(f"{role} ({reasons.get(role, 'silent')})" for role in wanted - ready)


def _status(port: int, token: str) -> bytes:
    # The standard library's client: the parent has one request to make and all cores are busy.
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5.0)
    try:
        headers = {"Authorization": f"Bearer {token}"}
        connection.request("GET", "/internal/status", headers=headers)
        return connection.getresponse().read()
    finally:
        connection.close()
