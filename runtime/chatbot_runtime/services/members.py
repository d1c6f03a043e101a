"""The heartbeat of every process: who runs, with which config, ready or why not."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from typing import Final

from chatbot_core import names
from chatbot_core.errors import Unavailable
from chatbot_runtime.domain.model import MemberRow
from chatbot_runtime.ports import Members
from chatbot_runtime.settings import RuntimeSettings

log = logging.getLogger(__name__)

BEAT_S: Final = 2.0
_LEAVE_S: Final = 1.0


def _no_report() -> dict[str, object]:
    return {}


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """Tells every 2 s what runs here; `ready` says whether work may be sent, and why not."""

    members: Members
    settings: RuntimeSettings
    role: names.Role
    address: str
    ready: Callable[[], tuple[bool, str]]
    report: Callable[[], dict[str, object]] = _no_report
    epoch: Callable[[], int] = int
    shard: int | None = None

    def row(self) -> MemberRow:
        """Return this process as it is now."""
        ready, reason = self.ready()
        return MemberRow(
            role=self.role.value,
            name=self.settings.pod_name,
            address=self.address,
            started_s=self.settings.started_s,
            version=version("chatbot-cluster"),
            config_hash=self.settings.config_hash(self.role),
            epoch=self.epoch(),
            ready=ready,
            reason=reason,
            shard=self.shard,
            report=self.report(),
        )

    async def run(self, beat_s: float = BEAT_S) -> None:
        """Beat until cancelled; what the operator waits for is told within a tenth of a beat.

        While the database is away nothing is told: a process that cannot be heard is not used.
        """
        silent = False
        while True:
            row = self.row()
            try:
                await self.members.beat(row)
                silent = False
            except Unavailable as error:
                if not silent:
                    log.warning("heartbeat not heard", extra={"why": str(error)})
                silent = True
            # A database that was away for a moment is told at once that we are here.
            for _ in range(3 if silent else 10):
                await asyncio.sleep(beat_s / 10)
                if not silent and _news(row) != _news(self.row()):
                    break

    async def leave(self) -> None:
        """Say good-bye at a clean end, so that nobody asks this process any more."""
        try:
            async with asyncio.timeout(_LEAVE_S):
                await self.members.leave(self.role.value, self.settings.pod_name)
        except (Unavailable, TimeoutError) as error:
            log.info("left without a word", extra={"why": str(error)})


def _news(row: MemberRow) -> tuple[object, ...]:
    return (row.ready, row.config_hash, row.epoch)
