"""The impure arguments of `chatbot_core.retry` from this process's clock, loop and randomness."""

from __future__ import annotations

import asyncio
import secrets

from chatbot_core.retry import Clockwork
from chatbot_runtime.ports import Clock

_SOURCE = secrets.SystemRandom()


def clockwork(clock: Clock) -> Clockwork:
    """Return a clockwork over `clock`."""
    return Clockwork(clock.monotonic_s, asyncio.sleep, _SOURCE.random)
