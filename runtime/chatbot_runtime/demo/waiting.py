"""Wait until the whole service is ready, as its own status document says."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Sequence
from typing import Final

import httpx
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
    headers = {"Authorization": f"Bearer {token}"}
    async with httpx.AsyncClient(
        base_url=f"http://127.0.0.1:{internal_port}", headers=headers, timeout=5.0
    ) as client:
        while missing := await _missing(client, wanted):
            if time.monotonic() > ends_s:
                raise Unavailable("demo", f"not ready after {START_S:.0f} s: {missing}")
            await asyncio.sleep(_POLL_S)


async def _missing(client: httpx.AsyncClient, wanted: Counter[str]) -> str:
    """Return in words what is not ready yet, empty when all is."""
    try:
        response = await client.get("/internal/status")
        response.raise_for_status()
        status = RuntimeStatus.model_validate_json(response.content)
    except (httpx.HTTPError, ValidationError) as error:
        return f"the API's status ({type(error).__name__})"
    ready = Counter(member.role for member in status.members if member.ready)
    reasons = {member.role: member.reason for member in status.members if not member.ready}
    return ", ".join(f"{role} ({reasons.get(role, 'silent')})" for role in wanted - ready)
