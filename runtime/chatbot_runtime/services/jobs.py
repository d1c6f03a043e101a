"""Workers: take a job under a lease, keep the lease while it runs, finish, repeat or give up."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Mapping
from typing import Final, Protocol

from chatbot_core.errors import Busy, ChatbotError, Invalid, NotFound, Unavailable
from chatbot_core.retry import Backoff
from chatbot_runtime.domain.model import Job, JobKind
from chatbot_runtime.ports import Jobs

log = logging.getLogger(__name__)

LEASE_S: Final = 30.0
#: A job that broke, or ended its worker, this often is given up with its reason.
MAX_ATTEMPTS: Final = 5
_IDLE_S: Final = 0.25
_BACKOFF: Final = Backoff(base_s=1.0, max_s=60.0)
#: Between tries while an outside world is away: as long as it takes, and soon after it is back.
_AWAY: Final = Backoff(base_s=4.0)
_GIVE_BACK_S: Final = 2.0


class Handler(Protocol):
    """Does one kind of job. `run` may be repeated from the start at any time."""

    async def run(self, job: Job, progress: Callable[[str], None]) -> None:
        """Do the job.

        Unavailable and Busy repeat it for as long as it takes, Invalid and NotFound end it for
        good, anything else counts as a broken attempt.
        """
        ...

    async def failed(self, job: Job, reason: str) -> None:
        """Note that the job will not be tried again."""
        ...


class Worker:
    """Runs jobs one after the other; several workers may share a process."""

    def __init__(
        self,
        jobs: Jobs,
        handlers: Mapping[JobKind, Handler],
        random: Callable[[], float],
        lease_s: float = LEASE_S,
    ) -> None:
        self._jobs = jobs
        self._handlers = handlers
        self._random = random
        self._lease_s = lease_s

    async def run(self, stopping: asyncio.Event) -> None:
        """Work until `stopping`; cancelled, the job in hand is given back to another worker."""
        away = 0
        while not stopping.is_set():
            try:
                busy = await self.step()
                away = 0
            except Unavailable as error:
                if away == 0:
                    log.warning("no jobs can be taken", extra={"why": str(error)})
                away, busy = away + 1, False
            if not busy:
                wait_s = _IDLE_S + (_BACKOFF.wait_s(away, self._random()) if away else 0)
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(stopping.wait(), wait_s)

    async def step(self) -> bool:
        """Take and do one job; say whether there was one. Raises Unavailable."""
        job = await self._jobs.take([kind.value for kind in self._handlers], self._lease_s)
        if job is None:
            return False
        handler = self._handlers[JobKind(job.kind)]
        if job.attempts > MAX_ATTEMPTS:
            reason = f"given up after {MAX_ATTEMPTS} attempts that ended without a result"
            await self._give_up(handler, job, reason)
            return True
        try:
            await self._under_lease(handler, job)
        except _LeaseLost:
            log.warning("job taken over by another worker", extra=_about(job))
        except (Invalid, NotFound) as error:
            await self._give_up(handler, job, reason_of(error))
        except (Busy, Unavailable) as error:
            wait_s = max(error.retry_after_s, _AWAY.wait_s(0, self._random()))
            log.warning("job will be repeated", extra={**_about(job), "why": str(error)})
            await self._jobs.give_back(job, str(error), wait_s)
        except asyncio.CancelledError:
            await self._handed_on(job)
            raise
        except Exception as error:
            log.exception("job broke", extra=_about(job))
            await self._broken(handler, job, error)
        return True

    async def _handed_on(self, job: Job) -> None:
        """Give the job back at once; where that fails its lease's end does it."""
        with contextlib.suppress(Unavailable, TimeoutError):
            async with asyncio.timeout(_GIVE_BACK_S):
                await self._jobs.give_back(job, "its worker was stopped", 0)

    async def _broken(self, handler: Handler, job: Job, error: Exception) -> None:
        if job.attempts >= MAX_ATTEMPTS:
            shown = str(error) if isinstance(error, ChatbotError) else type(error).__name__
            await self._give_up(handler, job, f"an internal error repeated itself: {shown}")
        else:
            wait_s = _BACKOFF.wait_s(job.attempts, self._random())
            await self._jobs.fail(job, type(error).__name__, wait_s)

    async def _give_up(self, handler: Handler, job: Job, reason: str) -> None:
        log.warning("job failed for good", extra={**_about(job), "why": reason})
        await handler.failed(job, reason)
        await self._jobs.fail(job, reason, None)

    async def _under_lease(self, handler: Handler, job: Job) -> None:
        said = [""]

        def progress(words: str) -> None:
            said[0] = words

        working = asyncio.ensure_future(handler.run(job, progress))
        keeping = asyncio.ensure_future(self._keep(job, said))
        try:
            await asyncio.wait({working, keeping}, return_when=asyncio.FIRST_COMPLETED)
            if working.done():
                working.result()
                await self._jobs.finish(job)
            else:
                keeping.result()
        finally:
            for task in (working, keeping):
                task.cancel()
            await asyncio.gather(working, keeping, return_exceptions=True)

    async def _keep(self, job: Job, said: list[str]) -> None:
        """Renew at a third of the lease. Raises _LeaseLost when it is no longer ours."""
        kept_s = asyncio.get_running_loop().time()
        while True:
            await asyncio.sleep(self._lease_s / 3)
            try:
                if not await self._jobs.renew(job, self._lease_s, said[0]):
                    raise _LeaseLost
                kept_s = asyncio.get_running_loop().time()
            except Unavailable:
                if asyncio.get_running_loop().time() - kept_s > self._lease_s:
                    raise _LeaseLost from None


class _LeaseLost(Exception):
    """The lease ran out or the job has another holder."""


def reason_of(error: Invalid | NotFound) -> str:
    """Return a failure's sentence for the owner of the document."""
    if isinstance(error, Invalid):
        return f"{error.value}; must be {error.allowed}"
    return str(error)


def _about(job: Job) -> dict[str, object]:
    return {"kind": job.kind, "key": job.key, "attempts": job.attempts}
