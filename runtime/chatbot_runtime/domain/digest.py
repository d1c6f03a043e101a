"""The 64-bit hash of a live document, whose XOR over a slot says what the slot holds.

XOR makes the digest of a set independent of order and lets one event change it in place
(M. Bellare, D. Micciancio, "A New Paradigm for Collision-Free Hashing", EUROCRYPT 1997, XHASH).
Values are signed as PostgreSQL stores a bigint.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable


def document_hash(doc_no: int, ver: int) -> int:
    """Return the signed 64-bit hash of one version of a document."""
    digest = hashlib.blake2b(struct.pack("<qq", doc_no, ver), digest_size=8).digest()
    return int.from_bytes(digest, "little", signed=True)


def combined(versions: Iterable[tuple[int, int]]) -> int:
    """Return the digest of a set of (doc_no, ver); 0 for none."""
    result = 0
    for doc_no, ver in versions:
        result ^= document_hash(doc_no, ver)
    return result


def delta(doc_no: int, before: int | None, after: int | None) -> int:
    """Return what to XOR into a digest when a document's live version changes; None is not live."""
    return combined((doc_no, ver) for ver in (before, after) if ver is not None)
