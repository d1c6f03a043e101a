"""The port `Shards`: a scatter over exactly the 1,024 slots, over the wire.

Who owns a slot comes from the slot map, where a shard listens from the heartbeats; both are read
at most once a second while questions flow, and anew when a shard refuses. What is refused or lost
is asked again for those slots only; what nobody answers for in time is reported as missing.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from prometheus_client import Counter

from chatbot_core import names
from chatbot_core.errors import Busy, Denied, Unavailable
from chatbot_core.retry import Deadline
from chatbot_runtime.adapters.shard_link import ShardLink
from chatbot_runtime.domain.model import Found, Hit, MemberRow, Query, SlotMap
from chatbot_runtime.domain.scatter import ALL_SLOTS, Answer, Ask, grouped, merged
from chatbot_runtime.ports import Clock, EventLog, Members

log = logging.getLogger(__name__)

MEMBER_MAX_AGE_S: Final = 6.0
_FRESH_S: Final = 1.0
_USABLE_S: Final = 5.0
_READ_S: Final = 2.0
#: The longest that one process may keep a question from being asked elsewhere.
_ATTEMPT_S: Final = 2.0
_BUSY_S: Final = 1.0
#: Waits before slots are asked again; after the last one they are missing.
_PAUSES_S: Final = (0.0, 0.02, 0.08, 0.2)

_MISSING: Final = Counter(
    "chatbot_missing_slots_total", "Slots that no shard answered for in time, over all questions"
)


@dataclass(slots=True)
class _Failed:
    """The addresses that a question was asked at in vain, and whether one was only too busy."""

    addresses: set[str] = field(default_factory=set)
    busy: bool = False


@dataclass(frozen=True, slots=True)
class _Routing:
    slot_map: SlotMap
    shards: dict[int, tuple[MemberRow, ...]]
    read_s: float


class ShardClient:
    """Asks the owners of slots; one connection a shard process."""

    def __init__(
        self, events: EventLog, members: Members, token: Callable[[], str], clock: Clock
    ) -> None:
        self._events = events
        self._members = members
        self._token = token
        self._clock = clock
        self._links: dict[str, ShardLink] = {}
        self._routing: _Routing | None = None
        self._reading = asyncio.Lock()
        self._background: asyncio.Task[None] | None = None

    @property
    def epoch(self) -> int:
        """Return the slot map's epoch that questions use now, 0 before the first."""
        return self._routing.slot_map.epoch if self._routing else 0

    async def close(self) -> None:
        """Close every connection."""
        if self._background is not None:
            self._background.cancel()
        for link in self._links.values():
            link.close()
        await asyncio.sleep(0)  # a transport closes its socket in the loop's next turn

    async def search(self, query: Query, deadline: Deadline) -> Found:
        """Return the best k over all slots. Raises Invalid for a query no shard can search with.

        Raises Busy at once where a shard and its replicas have too much to do, Unavailable only
        where no slot map was ever read.
        """
        missing = ALL_SLOTS
        parts: list[tuple[Hit, ...]] = []
        failed = _Failed()
        asked_s = self._clock.monotonic_s()
        routing = await self._current(asked_s - _USABLE_S)
        for turn, pause_s in enumerate(_PAUSES_S):
            if self._clock.monotonic_s() + pause_s >= deadline.at_s:
                break
            if pause_s:
                await asyncio.sleep(pause_s)
                routing = await self._current(asked_s)
            asked_s = self._clock.monotonic_s()
            answers = await self._scatter(routing, query, missing, failed, deadline)
            for answer in answers:
                parts.append(answer.hits)
                missing -= answer.answered
            if not missing:
                break
            if failed.busy and turn:
                raise Busy("retrieval", _BUSY_S)
        if missing:
            _MISSING.inc(len(missing))
        return Found(merged(parts, query.k), missing)

    async def searchable(self, slot: int, seq: int, deadline: Deadline) -> bool:
        """Say whether every ready process of the slot's owner has applied the sequence.

        Each of them may be asked next, so one that is behind makes the answer no.
        """
        routing = await self._current(self._clock.monotonic_s() - _FRESH_S)
        generation = await self._events.generation()
        owner = routing.shards.get(routing.slot_map.owners[slot], ())
        rows = [row for row in owner if row.ready] or owner
        ask = Ask(_existence(generation.gen), frozenset((slot,)), {slot: seq})
        answers = [await self._ask(row, ask, deadline, _Failed()) for row in rows]
        return bool(answers) and all(answer and slot in answer.answered for answer in answers)

    async def _scatter(
        self,
        routing: _Routing,
        query: Query,
        slots: frozenset[int],
        failed: _Failed,
        deadline: Deadline,
    ) -> list[Answer]:
        """Ask one process of each owner for its slots among `slots`; leave out those that fail."""
        asks = []
        for shard, mine in grouped(routing.slot_map.owners, slots).items():
            row = self._chosen(routing.shards.get(shard, ()), failed.addresses)
            if row is not None:
                asks.append(self._ask(row, Ask(query, mine), deadline, failed))
        return [answer for answer in await asyncio.gather(*asks) if answer is not None]

    async def _ask(
        self, row: MemberRow, ask: Ask, deadline: Deadline, failed: _Failed
    ) -> Answer | None:
        """Return the answer, None where there is none; a silent process leaves time for another."""
        now_s = self._clock.monotonic_s()
        wait_s = min(_ATTEMPT_S, max(0.25, deadline.left_s(now_s) / 2))
        own = Deadline(min(deadline.at_s, now_s + wait_s))
        try:
            return await self._link(row.address).ask(ask, own)
        except (Busy, Unavailable, Denied) as error:
            log.info("shard gave no answer", extra={"member": row.name, "why": str(error)})
            failed.addresses.add(row.address)
            failed.busy = failed.busy or isinstance(error, Busy)
            return None

    def _chosen(self, rows: Iterable[MemberRow], broken: set[str]) -> MemberRow | None:
        """Return the least busy process, ready ones and ones that did not fail first."""
        return min(
            rows,
            key=lambda row: (
                row.address in broken,
                not row.ready,
                self._link(row.address).in_flight,
                row.name,
            ),
            default=None,
        )

    def _link(self, address: str) -> ShardLink:
        link = self._links.get(address)
        if link is None:
            link = self._links[address] = ShardLink(address, self._token, self._clock)
        return link

    async def _current(self, not_before_s: float) -> _Routing:
        """Return routing read since `not_before_s`, or the former one while the database is away.

        An older one than a second is used while a new one is read behind the question.
        """
        routing = self._routing
        if routing is None or routing.read_s < not_before_s:
            try:
                return await self._read(not_before_s)
            except Unavailable:
                if routing is None:
                    raise
                return routing
        if self._clock.monotonic_s() - routing.read_s > _FRESH_S and self._background is None:
            self._background = asyncio.create_task(self._refresh())
        return routing

    async def _refresh(self) -> None:
        try:
            await self._read(self._clock.monotonic_s())
        except Unavailable as error:
            log.info("routing not refreshed", extra={"why": str(error)})
        finally:
            self._background = None

    async def _read(self, not_before_s: float) -> _Routing:
        async with self._reading:
            if self._routing is not None and self._routing.read_s >= not_before_s:
                return self._routing
            read_s = self._clock.monotonic_s()
            try:
                async with asyncio.timeout(_READ_S):
                    slot_map = await self._events.slot_map()
                    rows = await self._members.live(MEMBER_MAX_AGE_S)
            except TimeoutError:
                raise Unavailable("database", "no answer in time") from None
            shards: dict[int, tuple[MemberRow, ...]] = {}
            for row in rows:
                if row.role == names.Role.SHARD and row.shard is not None:
                    shards[row.shard] = (*shards.get(row.shard, ()), row)
            self._routing = _Routing(slot_map, shards, read_s)
            self._forget_links({row.address for rows in shards.values() for row in rows})
            return self._routing

    def _forget_links(self, addresses: set[str]) -> None:
        for address in tuple(self._links):
            if address not in addresses and not self._links[address].in_flight:
                self._links.pop(address).close()


def _existence(generation: int) -> Query:
    """Return a question for nothing: only whether slots would be answered for."""
    return Query(np.empty(0, dtype=np.float32), "", 0, generation)
