"""Which store a new object goes to.

Rendezvous hashing (D. Thaler and C. Ravishankar, "Using Name-Based Mappings to Increase Hit
Rates", 1998): each store draws a number from the object's id, the highest has it. Every store gets
an equal share, whatever the order of the list, and another list moves only what it must.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Final

_BYTES: Final = 8


def place(object_id: str, stores: Iterable[str]) -> str:
    """Return the name of the store for an object. Raises ValueError where there is no store."""
    return max(stores, key=lambda store: (_drawn(store, object_id), store))


def _drawn(store: str, object_id: str) -> bytes:
    # A store's name holds no NUL, so that no two pairs read alike.
    return hashlib.blake2b(f"{store}\0{object_id}".encode(), digest_size=_BYTES).digest()
