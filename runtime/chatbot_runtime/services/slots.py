"""`BoundedQueue` for coroutines: wait for a slot, within the queue's bound and a deadline."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from chatbot_core.retry import Deadline
from chatbot_runtime.domain.admission import BoundedQueue, Ticket
from chatbot_runtime.ports import Clock


async def take(queue: BoundedQueue, clock: Clock, deadline: Deadline | None = None) -> Ticket:
    """Return a ticket that holds a slot; the caller must `queue.leave` it.

    Raises Busy when the line is full, or when the wait took longer than `queue.max_wait_s` or
    the deadline. A cancelled waiter leaves no trace.
    """
    admitted: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def admit() -> None:
        if not admitted.done():
            admitted.set_result(None)

    now_s = clock.monotonic_s()
    ticket = queue.enter(now_s, admit)
    wait_s = queue.max_wait_s
    if deadline is not None:
        wait_s = min(wait_s, deadline.left_s(now_s))
    try:
        if not admitted.done():
            async with asyncio.timeout(wait_s):
                await admitted
    except TimeoutError:
        queue.leave(ticket, clock.monotonic_s())
        raise queue.busy() from None
    except BaseException:
        queue.leave(ticket, clock.monotonic_s())
        raise
    return ticket


@contextlib.asynccontextmanager
async def slot(
    queue: BoundedQueue, clock: Clock, deadline: Deadline | None = None
) -> AsyncIterator[Ticket]:
    """Hold a slot inside the context. Raises Busy as `take` does."""
    ticket = await take(queue, clock, deadline)
    try:
        yield ticket
    finally:
        queue.leave(ticket, clock.monotonic_s())
