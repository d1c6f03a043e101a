"""A shard's two works: follow the log, and answer for the slots it holds."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Final

import numpy as np

from chatbot_core.errors import Invalid, Unavailable
from chatbot_core.slots import slots_of
from chatbot_runtime.domain.holdings import Holdings
from chatbot_runtime.domain.model import Generation, PulledDocument
from chatbot_runtime.domain.scatter import Answer, Ask, Refusal
from chatbot_runtime.ports import Clock, EventLog, VectorIndex

log = logging.getLogger(__name__)

POLL_S: Final = 0.1
MAP_POLL_S: Final = 1.0
#: How long a question that wants more than is applied may wait for it.
BEHIND_WAIT_S: Final = 0.15
#: Slots a pull: bounds the memory of a load to a sixteenth of the shard's rows.
_PULL_SLOTS: Final = 64
_DOCUMENTS_A_TURN: Final = 50


class Shard:
    """One shard: its index, what it holds, and the loop that keeps both level with the log."""

    def __init__(
        self,
        number: int,
        events: EventLog,
        make_index: Callable[[Generation], VectorIndex],
        clock: Clock,
    ) -> None:
        self.number = number
        self.epoch = 0
        self.generation: Generation | None = None
        self.index: VectorIndex | None = None
        self.holdings = Holdings(0)
        self._events = events
        self._make_index = make_index
        self._clock = clock
        self._problem = "starting"
        self._map_due_s = float("-inf")
        self._wake = asyncio.Event()
        self._stepped = asyncio.Event()

    def ready(self) -> tuple[bool, str]:
        """Say whether everything was loaded once since the start, and why not."""
        if self.holdings.loaded_once:
            return True, ""
        loaded, held = len(self.holdings.ready), len(self.holdings.held)
        return False, self._problem or f"loading: {loaded} of {held} slots"

    def report(self) -> dict[str, object]:
        """Return what the heartbeat tells beside readiness."""
        return {"slots": len(self.holdings.held), "loaded": len(self.holdings.ready)}

    def settled(self, ask: Ask) -> bool:
        """Say whether a question can be answered without waiting."""
        return not ask.least or not self.holdings.behind(ask.least)

    async def catch_up(self, ask: Ask, wait_s: float) -> None:
        """Poll at once and wait until the sequences asked for are applied, at most 150 ms."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(min(wait_s, BEHIND_WAIT_S)):
                while self.holdings.behind(ask.least):
                    self._wake.set()
                    await self._stepped.wait()

    def answer(self, ask: Ask) -> Answer:
        """Answer for the slots that may be answered for, and refuse the others by name.

        Raises Invalid for a query vector that cannot be searched with.
        """
        refused: Mapping[Refusal, frozenset[int]] = self.holdings.refused(
            ask.slots, ask.query.generation, ask.least, self._clock.monotonic_s()
        )
        answered = ask.slots.difference(*refused.values()) if refused else ask.slots
        if not answered or ask.query.k == 0 or self.index is None:
            return Answer(answered, refused, ())
        return Answer(answered, refused, self.index.search(ask.query, answered))

    async def follow(self) -> None:
        """Keep level with the log until cancelled."""
        while True:
            try:
                await self.step()
                self._note_problem("")
            except Unavailable as error:
                self._note_problem(str(error))
            self._stepped.set()
            self._stepped = asyncio.Event()
            self._wake.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(POLL_S):
                    await self._wake.wait()

    async def step(self) -> None:
        """Poll the counters once and apply what moved. Raises Unavailable."""
        if self._clock.monotonic_s() >= self._map_due_s:
            await self._read_map()
        asked_s = self._clock.monotonic_s()
        counters = await self._events.counters(self.holdings.generation)
        moves = self.holdings.compare(counters, asked_s)
        if moves.drop:
            log.error("slots disagree with the log, loading them anew", extra=_named(moves.drop))
            self._drop(moves.drop)
        pull = list(moves.pull.items())
        for start in range(0, len(pull), _PULL_SLOTS):
            await self._pull(dict(pull[start : start + _PULL_SLOTS]))

    async def _read_map(self) -> None:
        generation = await self._events.generation()
        slot_map = await self._events.slot_map()
        if generation != self.generation:
            self.generation = generation
            self.index = self._make_index(generation)
            self.holdings = Holdings(generation.gen)
        mine = {*slots_of(slot_map.owners, self.number), *slots_of(slot_map.next, self.number)}
        self._drop(self.holdings.hold(mine))
        self.epoch = slot_map.epoch
        self._map_due_s = self._clock.monotonic_s() + MAP_POLL_S

    async def _pull(self, after: Mapping[int, int]) -> None:
        counters, documents = await self._events.pull(self.holdings.generation, after)
        deltas: dict[int, int] = {}
        for turn, document in enumerate(documents):
            deltas[document.slot] = deltas.get(document.slot, 0) ^ self._apply(document)
            if turn % _DOCUMENTS_A_TURN == _DOCUMENTS_A_TURN - 1:
                await asyncio.sleep(0)  # questions are answered between documents
        wrong = self.holdings.settle(deltas, counters, self._clock.monotonic_s())
        if wrong:
            log.error("pulled slots disagree with their counter", extra=_named(wrong))
            self._drop(wrong)

    def _apply(self, document: PulledDocument) -> int:
        assert self.index is not None
        try:
            return self.index.apply(document)
        except Invalid as error:
            # One broken document must not keep the whole slot from being searched.
            log.error(  # noqa: TRY400 - the message says it all
                "document refused", extra={"doc_no": document.doc_no, "why": str(error)}
            )
            nothing = np.empty((0, 0), dtype=np.float16)
            return self.index.apply(
                replace(document, ords=np.empty(0, dtype=np.int32), vectors=nothing)
            )

    def _drop(self, slots: frozenset[int]) -> None:
        for slot in slots:
            if self.index is not None:
                self.index.drop_slot(slot)

    def _note_problem(self, problem: str) -> None:
        if problem != self._problem:
            if problem:
                log.warning("cannot follow the log", extra={"why": problem})
            self._problem = problem


def _named(slots: frozenset[int]) -> dict[str, object]:
    return {"count": len(slots), "slots": sorted(slots)[:10]}
