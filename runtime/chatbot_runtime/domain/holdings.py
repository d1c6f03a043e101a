"""What a shard holds, slot by slot, and whether it may answer for it.

The counters of the database are compared at every poll: behind is pulled; ahead, or level with
another digest, is dropped and loaded anew. That one rule covers a restored or failed-over
database, a foreign one and our own bugs. Time is an argument (monotonic seconds).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from chatbot_core.slots import SLOT_COUNT
from chatbot_runtime.domain.model import SlotCounter
from chatbot_runtime.domain.scatter import Refusal

#: An answer is given only while the counters were confirmed this lately: a paused owner is silent.
CONFIRMED_S: Final = 2.0
_RELOAD_BASE_S: Final = 0.5
_RELOAD_MAX_S: Final = 30.0


@dataclass(slots=True)
class _Slot:
    seq: int = 0
    digest: int = 0
    loaded: bool = False
    mismatches: int = 0
    load_at_s: float = -math.inf


@dataclass(frozen=True, slots=True)
class Moves:
    """What a poll found: slot -> sequence to pull after, and slots to forget before."""

    pull: Mapping[int, int]
    drop: frozenset[int]


class Holdings:
    """The slots of one shard in one generation."""

    def __init__(self, generation: int) -> None:
        self.generation = generation
        self.loaded_once = False
        self._slots: dict[int, _Slot] = {}
        self._ready: frozenset[int] = frozenset()
        self._confirmed_s = -math.inf

    @property
    def held(self) -> frozenset[int]:
        """Return the slots held, loaded or not."""
        return frozenset(self._slots)

    @property
    def ready(self) -> frozenset[int]:
        """Return the slots that are loaded."""
        return self._ready

    def hold(self, slots: Iterable[int]) -> frozenset[int]:
        """Hold exactly these slots from now on; return those given up, to be forgotten."""
        wanted = frozenset(slots)
        released = self.held - wanted
        self._slots = {slot: self._slots.get(slot) or _Slot() for slot in sorted(wanted)}
        self._note_ready()
        return released

    def compare(self, counters: Iterable[SlotCounter], asked_s: float) -> Moves:
        """Confirm what the counters, asked for at `asked_s`, agree with; return what moved."""
        pull: dict[int, int] = {}
        drop: set[int] = set()
        seen = 0
        for counter in counters:
            seen += 1
            slot = self._slots.get(counter.slot)
            if slot is None:
                continue
            level = counter.seq == slot.seq
            if slot.loaded and (
                counter.seq < slot.seq or (level and counter.digest != slot.digest)
            ):
                self._forget(slot, asked_s)
                drop.add(counter.slot)
            if slot.loaded and not level:
                pull[counter.slot] = slot.seq
            elif not slot.loaded and asked_s >= slot.load_at_s:
                pull[counter.slot] = 0
        if seen == SLOT_COUNT:
            self._confirmed_s = asked_s
        if drop:
            self._note_ready()
        return Moves(pull, frozenset(drop))

    def settle(
        self, deltas: Mapping[int, int], counters: Mapping[int, SlotCounter], now_s: float
    ) -> frozenset[int]:
        """Take over what a pull applied; return slots whose digest disagrees, to be forgotten."""
        wrong: set[int] = set()
        for number, counter in counters.items():
            slot = self._slots.get(number)
            if slot is None:
                continue
            slot.digest ^= deltas.get(number, 0)
            slot.seq = counter.seq
            if slot.digest == counter.digest:
                slot.loaded, slot.mismatches = True, 0
            else:
                self._forget(slot, now_s)
                wrong.add(number)
        self._note_ready()
        if self._slots and len(self._ready) == len(self._slots):
            self.loaded_once = True
        return frozenset(wrong)

    def behind(self, least: Mapping[int, int]) -> bool:
        """Say whether a held slot has not applied a sequence that is asked for."""
        return any(
            slot.seq < seq
            for number, seq in least.items()
            if (slot := self._slots.get(number)) is not None
        )

    def refused(
        self, slots: frozenset[int], generation: int, least: Mapping[int, int], now_s: float
    ) -> dict[Refusal, frozenset[int]]:
        """Return which of the slots may not be answered for, by reason; empty when all may."""
        if generation != self.generation:
            return {Refusal.WRONG_GENERATION: slots}
        if now_s - self._confirmed_s >= CONFIRMED_S:
            return {Refusal.UNCONFIRMED: slots}
        if not least and slots <= self._ready:
            return {}
        reasons: dict[Refusal, set[int]] = {}
        for number in slots:
            slot = self._slots.get(number)
            if slot is None:
                reasons.setdefault(Refusal.NOT_HELD, set()).add(number)
            elif not slot.loaded:
                reasons.setdefault(Refusal.LOADING, set()).add(number)
            elif slot.seq < least.get(number, 0):
                reasons.setdefault(Refusal.BEHIND, set()).add(number)
        return {reason: frozenset(mine) for reason, mine in reasons.items()}

    def _forget(self, slot: _Slot, now_s: float) -> None:
        """Start over, at once the first time, then with doubling waits: loading costs reads."""
        slot.seq, slot.digest, slot.loaded = 0, 0, False
        if slot.mismatches:
            wait_s = _RELOAD_BASE_S * 2.0 ** min(slot.mismatches, 10)
            slot.load_at_s = now_s + min(_RELOAD_MAX_S, wait_s)
        slot.mismatches += 1

    def _note_ready(self) -> None:
        self._ready = frozenset(number for number, slot in self._slots.items() if slot.loaded)
