"""A runtime that answers what a test says, or nothing."""

from __future__ import annotations

from dataclasses import dataclass, field

from chatbot_core.errors import Unavailable
from chatbot_core.runtime_config import RuntimeStatus
from chatbot_operator.runtime_client import StatusAnswer


@dataclass(slots=True)
class FakeRuntime:
    """`asked` lists (address, token, etag) of every question."""

    answer: RuntimeStatus | None = None
    asked: list[tuple[str, str, str]] = field(default_factory=list)

    async def status(self, address: str, token: str, etag: str) -> StatusAnswer:
        self.asked.append((address, token, etag))
        if self.answer is None:
            raise Unavailable("runtime", "silent")
        tag = str(hash(self.answer))
        return StatusAnswer(None if etag == tag else self.answer, tag)
