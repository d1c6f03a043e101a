"""The system's clocks behind the port `Clock`."""

from __future__ import annotations

import time


class SystemClock:
    """Time of this machine."""

    def monotonic_s(self) -> float:
        """Return seconds that only move forward; comparable inside this process alone."""
        return time.monotonic()

    def unix_s(self) -> float:
        """Return seconds since 1970."""
        return time.time()
