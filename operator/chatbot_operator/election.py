"""The process's part in the election: looks at the Lease, renews it, and works while it leads."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Final

from chatbot_core.errors import ChatbotError, Unavailable
from chatbot_operator import lease
from chatbot_operator.kinds import Object, Ref
from chatbot_operator.kube import Kube, WriteRefused
from chatbot_operator.lease import Candidate, Decision

#: Half the renew deadline, so that one lost request does not cost the lease.
REQUEST_TIMEOUT_S: Final = 5.0
#: On the way out: for the writes under way, and then for giving the lease back.
DRAIN_S: Final = 1.0
RELEASE_TIMEOUT_S: Final = 2.0
#: The Lease is not what we knew: somebody wrote or deleted it, or our last answer got lost.
_CHANGED: Final = frozenset({HTTPStatus.NOT_FOUND, HTTPStatus.CONFLICT})

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class Election:
    """One candidate for one Lease; `kube` is a client of its own, behind no fence.

    `now_s` is monotonic and decides; `wall_s` is what people read in the Lease.
    """

    kube: Kube
    ref: Ref
    me: str
    now_s: Callable[[], float]
    wall_s: Callable[[], float]
    candidate: Candidate = field(init=False)
    _live: Object | None = field(init=False, default=None)
    _last_renew_time: str = field(init=False, default="")
    _in_reach: bool = field(init=False, default=True)

    def __post_init__(self) -> None:
        self.candidate = Candidate(self.me)

    @property
    def leads(self) -> bool:
        """Whether this process leads."""
        return self.candidate.leads

    def write_left_s(self) -> float:
        """Return within how many seconds a write that begins now must be over; 0 = none may."""
        return self.candidate.write_left_s(self.now_s())

    async def run(
        self, work: Callable[[], Awaitable[None]], drained: Callable[[], Awaitable[None]]
    ) -> None:
        """Run `work` while this process leads, until cancelled; then give the lease back.

        `drained` waits for the writes under way.
        """
        working: asyncio.Future[None] | None = None
        try:
            while True:
                await self.step()
                if self.leads and working is None:
                    working = asyncio.ensure_future(work())
                elif working is not None and not self.leads:
                    await _end(working, drained)
                    working = None
                await self._pause(working)
        finally:
            # From here on no write begins; others still wait for the release.
            self.candidate = self.candidate.stepped_down()
            if working is not None:
                await _end(working, drained)
            await self._release()

    async def _pause(self, working: asyncio.Future[None] | None) -> None:
        if working is None:
            await asyncio.sleep(lease.LOOK_EVERY_S)
            return
        done, _ = await asyncio.wait({working}, timeout=lease.RENEW_EVERY_S)
        for one in done:
            one.result()

    async def step(self) -> None:
        """Look where it does not lead, decide, and do it; a failure waits for the next step."""
        led = self.leads
        try:
            async with asyncio.timeout(REQUEST_TIMEOUT_S):
                if not led:
                    await self._look()
                await self._do(lease.decide(self.candidate, self.now_s()))
            self._in_reach = True
        except (ChatbotError, TimeoutError) as error:
            level = logging.WARNING if self._in_reach else logging.DEBUG
            _log.log(level, "lease not reached", extra={"error": _of(error)})
            self._in_reach = False
        if lease.decide(self.candidate, self.now_s()) is Decision.STEP_DOWN:
            self.candidate = self.candidate.stepped_down()
        if led != self.leads:
            words = "lease acquired" if self.leads else "lease lost"
            _log.info(words, extra={"lease": str(self.ref), "identity": self.me})

    async def _look(self) -> None:
        self._live = await self.kube.get(self.ref)
        record = None if self._live is None else lease.record_of(self._live)
        self.candidate = self.candidate.saw(record, self.now_s())

    async def _do(self, decision: Decision) -> None:
        if decision is Decision.RESTORE:
            await self.kube.create(lease.missing(self.ref))
        elif decision in {Decision.ACQUIRE, Decision.RENEW}:
            await self._hold()

    async def _hold(self) -> None:
        """Write ourselves into the Lease, once more if what we knew of our own was old."""
        sent_s = self.now_s()
        answer = await self._write()
        if isinstance(answer, WriteRefused) and answer.code in _CHANGED:
            await self._look()
            if lease.decide(self.candidate, self.now_s()) is not Decision.RENEW:
                return
            sent_s = self.now_s()
            answer = await self._write()
        if isinstance(answer, WriteRefused):
            raise Unavailable(str(self.ref), answer.message)
        self._live = answer
        self._last_renew_time = str(answer["spec"]["renewTime"])
        self.candidate = self.candidate.renewed(lease.record_of(answer), sent_s, self.now_s())

    async def _write(self) -> Object | WriteRefused:
        absent = self._live is None
        live = lease.missing(self.ref, "") if self._live is None else self._live
        obj = lease.held(live, self.me, self.wall_s(), self._last_renew_time)
        return await (self.kube.create(obj) if absent else self.kube.replace(obj))

    async def _release(self) -> None:
        """Leave the Lease free if it is ours: also after a write whose answer never came."""
        try:
            async with asyncio.timeout(RELEASE_TIMEOUT_S):
                live = await self.kube.get(self.ref)
                if live is not None and lease.record_of(live).holder == self.me:
                    await self.kube.replace(lease.released(live))
                    _log.info("lease released", extra={"lease": str(self.ref)})
        except (ChatbotError, TimeoutError) as error:
            _log.warning("lease not released", extra={"error": _of(error)})


async def _end(working: asyncio.Future[None], drained: Callable[[], Awaitable[None]]) -> None:
    """End the work: no write begins any more; those under way get a moment."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(DRAIN_S):
            await drained()
    working.cancel()
    await asyncio.wait({working})


def _of(error: BaseException) -> str:
    return str(error) or type(error).__name__
