"""One question to a shard, and the whole of 1,024 slots made of such questions.

A question names the slots and, per slot, the least sequence it accepts. A shard answers or refuses
slot by slot, so that the router can ask again for exactly what is missing: nothing lost, nothing
twice.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from chatbot_core.slots import SLOT_COUNT
from chatbot_runtime.domain.model import Hit, Query

ALL_SLOTS: Final = frozenset(range(SLOT_COUNT))


class Refusal(StrEnum):
    """Why a shard does not answer for a slot."""

    NOT_HELD = "not-held"
    WRONG_GENERATION = "wrong-generation"
    LOADING = "loading"
    BEHIND = "behind"
    UNCONFIRMED = "unconfirmed"


@dataclass(frozen=True, slots=True)
class Ask:
    """A search over some slots; `k` 0 only asks whether they would be answered for."""

    query: Query
    slots: frozenset[int]
    least: Mapping[int, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Answer:
    """What a shard answered for, and for the other slots why not."""

    answered: frozenset[int]
    refused: Mapping[Refusal, frozenset[int]]
    hits: tuple[Hit, ...]


def grouped(owners: Sequence[int], slots: Iterable[int]) -> dict[int, frozenset[int]]:
    """Return shard -> its slots among `slots`."""
    shards: dict[int, list[int]] = {}
    for slot in slots:
        shards.setdefault(owners[slot], []).append(slot)
    return {shard: frozenset(mine) for shard, mine in shards.items()}


def merged(parts: Iterable[Sequence[Hit]], k: int) -> tuple[Hit, ...]:
    """Return the best k of all parts: score descending, then doc_no, then ord."""
    hits = [hit for part in parts for hit in part]
    hits.sort(key=lambda hit: (-hit.score, hit.doc_no, hit.ord))
    return tuple(hits[:k])
