"""One namespace with one object, its operator as a process, and the proxy between."""

from __future__ import annotations

import asyncio
import functools
import json
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

import aiohttp
from crash.harness import oracle, proxy
from crash.harness.faults import Fault
from crash.harness.positions import Position
from crash.harness.proxy import Proxy
from crash.harness.workflows import Workflow, is_ready, size_of
from fakes import operator_process, operator_world
from fakes.apiserver import Admin, new_namespace
from fakes.objects import SETTINGS, cluster_ref

from chatbot_core import names
from chatbot_core.runtime_config import RuntimeConfig
from chatbot_operator import feeders, kube, reconcile, status
from chatbot_operator.kinds import WATCHED, Object
from chatbot_operator.main import Process
from localkube.testserver import LoopbackServer

#: A silent watch is given up after this; bookmarks come about every minute, so each one is.
SILENCE_S = 8.0
#: So long nothing may be written before a state counts as the end.
STILL_S = 0.8
#: After the end so long nothing may be written at all.
REST_S = 0.4
#: Every undisturbed turn takes two to five seconds here; a disturbed one may wait for a relist.
SETTLE_S = 60.0


def shorten(*, repairs: bool) -> None:
    """Let minutes be seconds, in an operator process.

    With `repairs` also what finds a lost event, a full list or a watch that was silent too long.
    """
    status.QUIET_S = 0.3  # type: ignore[misc] # a test's own tempo
    kube.REQUEST_TIMEOUT_S = 1.5  # type: ignore[misc]
    feeders.STATUS_BUSY_S = reconcile.STATUS_BUSY_S = 0.4  # type: ignore[misc]
    feeders.SECRET_AWAITED_S = reconcile.SECRET_AWAITED_S = 1.0  # type: ignore[misc]
    if repairs:
        kube.WATCH_SILENCE_S = SILENCE_S  # type: ignore[misc]
        feeders.RELIST_S = 6.0  # type: ignore[misc]
        feeders.OWNER_LIST_S = 4.0  # type: ignore[misc]


def _prepare(port: int, *, repairs: bool) -> None:
    shorten(repairs=repairs)
    operator_process.runtime_at(port)


@dataclass(frozen=True, slots=True)
class Ground:
    """What all stages share."""

    server: LoopbackServer
    kubeconfig: Path
    admin: Admin
    http: aiohttp.ClientSession
    repairs: bool = False


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a turn must end with, whatever went wrong in it."""

    state: dict[str, Object]
    made_and_removed: Counter[str]
    changes: dict[str, int]  # of each child's spec: what `metadata.generation` has grown by


class NotSettledError(Exception):
    """The object did not come to the expected rest."""


@dataclass(slots=True)
class Stage:
    """Where turns of one workflow happen, one after the other."""

    ground: Ground
    namespace: str
    workflow: Workflow
    proxy: Proxy = field(init=False)
    turn: int = 0
    lives: int = 0
    ends: int = 0  # by itself, on an answer that only a broken server gives
    _process: ForkServerProcess | None = None
    _generations: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.proxy = Proxy(self.ground.http, self._runtime, self.kill_and_restart)

    @property
    def log(self) -> Path:
        return self.ground.server.plane.state / "log" / f"operator-{self.namespace}.log"

    @property
    def ended(self) -> bool:
        """Whether the operator ended although nobody killed it."""
        return self._process is not None and not self._process.is_alive()

    def start(self) -> None:
        config = json.loads(self.ground.kubeconfig.read_text())
        config["clusters"][0]["cluster"] = {"server": f"http://127.0.0.1:{self.proxy.port}"}
        path = self.log.with_suffix(".kubeconfig")
        path.write_text(json.dumps(config))
        process = Process(SETTINGS, (self.namespace,), port=0)
        prepare = functools.partial(_prepare, self.proxy.port, repairs=self.ground.repairs)
        self.proxy.watched.clear()
        self._process = operator_process.start(path, process, self.log, prepare)
        self.lives += 1

    async def kill(self) -> None:
        victim, self._process = self._process, None
        if victim is not None:
            victim.kill()
            await asyncio.to_thread(victim.join)

    async def kill_and_restart(self) -> None:
        assert not self.ended, f"it ended by itself; see {self.log}"
        await self.kill()
        self.start()

    async def begin(self) -> None:
        """Begin the next turn, undisturbed: count from here."""
        self.proxy.reset()
        await self._act()

    async def begin_armed(self, position: Position, fault: Fault) -> None:
        """Begin the next turn with a fault in it."""
        self.proxy.reset()
        self.proxy.arm(position, fault)
        await self._act()

    async def begin_noisy(self, seed: int, share: float) -> None:
        """Begin the next turn with a share of all answers broken until it is over."""
        self.proxy.reset()
        self.proxy.make_noise(seed, share)
        await self._act()

    async def _act(self) -> None:
        found = await oracle.objects(self.ground.admin, self.namespace)
        self._generations = _generations(found)
        await self.workflow.act(self.ground.admin, self.namespace, self.turn)
        self.turn += 1

    async def outcome(self) -> Outcome:
        """Return how the turn has ended so far."""
        found = await oracle.objects(self.ground.admin, self.namespace)
        words = {self.namespace: "NAMESPACE", size_of(self.turn - 1): "SIZE"}
        changes = {
            key: now - self._generations.get(key, 0) for key, now in _generations(found).items()
        }
        return Outcome(
            oracle.end_state(found, words),
            oracle.made_and_removed(self.proxy.writes),
            changes,
        )

    async def settle(self, expected: Outcome | None = None, within_s: float = SETTLE_S) -> Outcome:
        """Wait until the object is ready and nothing more is written; raises NotSettledError."""
        ends_s = time.monotonic() + within_s
        words = "it is not ready, or never rests"
        while time.monotonic() < ends_s:
            self._start_again()
            quiet_s = time.monotonic() - self.proxy.last_write_s
            if quiet_s < STILL_S:
                await asyncio.sleep(STILL_S - quiet_s + 0.02)
                continue
            if self.workflow.done(await self.ground.admin.get(cluster_ref(self.namespace))):
                found = await self.outcome()
                # Of an object that is gone the garbage collector leaves nothing, a little later.
                left = self.workflow.done(None) and found.state
                if found == expected or (expected is None and not left):
                    return found
                words = difference(expected, found) if expected else str(sorted(found.state))
            await asyncio.sleep(0.4)
        raise NotSettledError(words)

    def _start_again(self) -> None:
        """Do what a kubelet does where the process may end; raises NotSettledError where not."""
        if not self.ended:
            return
        if not self.proxy.may_end_the_process:
            raise NotSettledError("the operator ended by itself")
        self.ends += 1
        self.start()

    async def made(self) -> None:
        """Wait until a new object is ready; raises NotSettledError."""
        whole, self.workflow = self.workflow, replace(self.workflow, done=_is_ready)
        try:
            await self.settle()
        finally:
            self.workflow = whole

    async def rest(self) -> None:
        """Wait until a started operator knows everything; raises NotSettledError if it writes."""
        before = len(self.proxy.writes)
        ends_s = time.monotonic() + SETTLE_S
        while not {names.KIND, *WATCHED} <= self.proxy.watched:
            if self.ended:
                raise NotSettledError(f"the operator ended by itself; log: {self.keep_log()}")
            if time.monotonic() > ends_s:
                raise NotSettledError(f"it watches only {sorted(self.proxy.watched)}")
            await asyncio.sleep(0.05)
        await asyncio.sleep(REST_S)
        written = [str(one.what) for one in self.proxy.writes[before:]]
        if written:
            raise NotSettledError(f"it wrote although nothing had changed: {written}")

    def keep_log(self) -> Path:
        """Return a copy of the operator's log that outlives the servers."""
        kept = Path(tempfile.gettempdir()) / self.log.name
        shutil.copy(self.log, kept)
        return kept

    async def _runtime(self) -> str:
        """Answer as an API pod whose processes all run the present document."""
        document = RuntimeConfig.model_validate_json(self.proxy.document or "{}")
        return operator_world.report(document).model_dump_json()


def _is_ready(obj: Object | None) -> bool:
    return obj is not None and is_ready(obj)


def _generations(found: list[Object]) -> dict[str, int]:
    return {
        f"{one['kind']} {one['metadata']['name']}": one["metadata"].get("generation", 0)
        for one in found
        # A person's edit and a deletion change the generation of the object itself.
        if one["kind"] != names.KIND
    }


def difference(expected: Outcome, found: Outcome) -> str:
    """Return the first few places in which two outcomes differ."""
    lines: list[str] = []
    for name in ("state", "made_and_removed", "changes"):
        _compare(name, getattr(expected, name), getattr(found, name), lines)
    return "\n".join(lines[:12])


def _compare(path: str, expected: Any, found: Any, lines: list[str]) -> None:
    if isinstance(expected, dict) and isinstance(found, dict):
        for key in sorted({*expected, *found}):
            _compare(f"{path} > {key}", expected.get(key), found.get(key), lines)
    elif isinstance(expected, list) and isinstance(found, list) and len(expected) == len(found):
        for number, (one, other) in enumerate(zip(expected, found, strict=True)):
            _compare(f"{path}[{number}]", one, other, lines)
    elif expected != found:
        lines.append(f"  {path}: expected {expected!r:.300}, found {found!r:.300}")


@asynccontextmanager
async def on_stage(ground: Ground, workflow: Workflow) -> AsyncIterator[Stage]:
    """Yield a stage with a running operator and, unless the workflow makes it, a ready object."""
    stage = Stage(ground, new_namespace(ground.server), workflow)
    async with proxy.serving(stage.proxy):
        try:
            stage.start()
            await stage.rest()
            if workflow.prepare is not None:
                stage.proxy.reset()
                await workflow.prepare(ground.admin, stage.namespace, 0)
                await stage.made()
            yield stage
        finally:
            await stage.kill()
