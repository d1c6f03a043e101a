"""Document to slot, slot to shard: 1,024 fixed slots, least moves between shard counts.

A document's slot is drawn from its random public id once, stored with it and never recomputed, so
that the number of shards is a matter of the slot map alone. The balanced map with least moves
follows the virtual-slot idea of Redis Cluster and Elasticsearch's routing shards.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import Final

from chatbot_core.errors import Invalid

SLOT_COUNT: Final = 1024
BITMAP_BYTES: Final = SLOT_COUNT // 8


def slot_of(doc_id: str) -> int:
    """Return the slot, 0 to 1,023, of a public document id."""
    digest = hashlib.blake2b(doc_id.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") % SLOT_COUNT


def initial_owners(shards: int) -> tuple[int, ...]:
    """Return the owner of each slot for a new cluster: shard numbers, balanced to one slot.

    Raises Invalid for fewer than one shard or more than there are slots.
    """
    if not 1 <= shards <= SLOT_COUNT:
        raise Invalid("shards", shards, f"1 to {SLOT_COUNT}")
    return tuple(slot * shards // SLOT_COUNT for slot in range(SLOT_COUNT))


def rebalance(owners: Sequence[int], shards: int) -> tuple[int, ...]:
    """Return a map over `shards` shards, balanced to one slot, that moves the fewest slots."""
    target = [len(owners) // shards + (i < len(owners) % shards) for i in range(shards)]
    held = [0] * shards
    for owner in owners:
        if owner < shards:
            held[owner] += 1
    # The larger quotas go to the shards that already hold more: each saves a move.
    quota = [0] * shards
    for size, shard in zip(target, sorted(range(shards), key=lambda s: (-held[s], s)), strict=True):
        quota[shard] = size
    result: list[int] = []
    free: list[int] = []
    used = [0] * shards
    for slot, owner in enumerate(owners):
        keeps = owner < shards and used[owner] < quota[owner]
        result.append(owner if keeps else -1)
        if keeps:
            used[owner] += 1
        else:
            free.append(slot)
    room = [shard for shard in range(shards) for _ in range(quota[shard] - used[shard])]
    for slot, shard in zip(free, room, strict=True):
        result[slot] = shard
    return tuple(result)


def slots_of(owners: Sequence[int], shard: int) -> tuple[int, ...]:
    """Return the slots that a shard owns, ascending."""
    return tuple(slot for slot, owner in enumerate(owners) if owner == shard)


def to_bitmap(slots: Iterable[int]) -> bytes:
    """Return a set of slots as 128 bytes, slot 0 in the lowest bit of the first byte."""
    bits = bytearray(BITMAP_BYTES)
    for slot in slots:
        bits[slot >> 3] |= 1 << (slot & 7)
    return bytes(bits)


def from_bitmap(bitmap: bytes) -> frozenset[int]:
    """Return the slots of a bitmap. Raises Invalid where it is not 128 bytes long."""
    if len(bitmap) != BITMAP_BYTES:
        raise Invalid("slots", len(bitmap), f"a bitmap of {BITMAP_BYTES} bytes")
    return frozenset(slot for slot in range(SLOT_COUNT) if bitmap[slot >> 3] >> (slot & 7) & 1)
