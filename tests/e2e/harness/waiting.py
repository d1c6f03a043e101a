"""Waiting for what a cluster does in its own time."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")
POLL_S = 0.25


def until(what: str, look: Callable[[], T | None], timeout_s: float, poll_s: float = POLL_S) -> T:
    """Return the first thing that `look` sees which is neither None nor False."""
    began_s = time.monotonic()
    while True:
        seen = look()
        if seen is not None and seen is not False:
            return seen
        elapsed_s = time.monotonic() - began_s
        assert elapsed_s < timeout_s, f"{what}: not within {timeout_s:.0f} s"
        time.sleep(poll_s)
