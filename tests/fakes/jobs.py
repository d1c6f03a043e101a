"""Background work in memory: what PostgreSQL promises of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from fakes.data import World

from chatbot_runtime.domain.model import Job


class FakeJobs:
    """The port `Jobs` in memory."""

    def __init__(self, world: World) -> None:
        self._world = world

    async def enqueue(
        self, kind: str, key: str, workspace: str, payload: Mapping[str, object], run_after_s: float
    ) -> bool:
        return self._world.enqueue(kind, key, workspace, payload, run_after_s)

    async def take(self, kinds: Sequence[str], lease_s: float) -> Job | None:
        now_s = self._world.clock.now_s
        due = [
            known
            for known in self._world.jobs.values()
            if known.job.kind in kinds
            and not known.failed
            and known.due_s <= now_s
            and known.lease_s <= now_s
        ]
        if not due:
            return None
        first = min(due, key=lambda known: (known.due_s, known.job.id))
        token = f"token-{next(self._world.ids)}"
        first.job = replace(first.job, token=token, attempts=first.job.attempts + 1)
        first.lease_s = now_s + lease_s
        return first.job

    async def renew(self, job: Job, lease_s: float, progress: str) -> bool:
        known = self._world.held(job)
        if known:
            known.lease_s = self._world.clock.now_s + lease_s
        return known is not None

    async def finish(self, job: Job) -> bool:
        held = self._world.held(job) is not None
        if held:
            del self._world.jobs[job.id]
        return held

    async def fail(self, job: Job, error: str, retry_after_s: float | None) -> bool:
        known = self._world.held(job)
        if known is None:
            return False
        known.failed = retry_after_s is None
        known.job = replace(known.job, token="")
        known.lease_s = 0.0
        known.due_s = self._world.clock.now_s + (retry_after_s or 0.0)
        return True

    async def give_back(self, job: Job, why: str, wait_s: float) -> bool:
        known = self._world.held(job)
        if known is None:
            return False
        known.job = replace(known.job, attempts=known.job.attempts - 1)
        return await self.fail(job, why, wait_s)
