"""A shard's side of the wire: an asyncio protocol, many questions in flight on one connection.

Searches run one by one in the event loop: one takes less time than a switch of threads, and it
never meets a half-applied document. Between two of them new questions are read, so that the line
is known and what does not fit into it is refused at once instead of waiting unseen in a socket.
A connection that does not start with the cluster's token is told
so and closed; one that sends what is no frame is closed.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import logging
import time
from collections.abc import AsyncIterator, Callable
from typing import Final, Protocol, cast

from prometheus_client import Counter, Gauge, Histogram

from chatbot_core.errors import Busy, ChatbotError, Denied, Invalid, Unavailable
from chatbot_runtime.adapters import wire
from chatbot_runtime.adapters.wire import Frame, Kind
from chatbot_runtime.domain.admission import BoundedQueue
from chatbot_runtime.domain.scatter import Answer, Ask

log = logging.getLogger(__name__)

_SEARCH_SECONDS: Final = Histogram(
    "chatbot_shard_search_seconds",
    "Time of one search inside a shard",
    buckets=(0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0),
)
_REFUSED: Final = Counter(
    "chatbot_shard_refused_slots_total", "Slots a shard did not answer for", ["reason"]
)
_BUSY: Final = Counter("chatbot_shard_busy_total", "Questions refused because too many waited")
_WAITING: Final = Gauge("chatbot_shard_waiting_searches", "Questions that wait for their turn")

#: Questions in line before a shard refuses more, and how long one may stand there.
MAX_WAITING: Final = 1024
MAX_WAIT_S: Final = 1.5


class Answering(Protocol):
    """What the server asks: `services.shard.Shard`."""

    def settled(self, ask: Ask) -> bool:
        """Say whether a question can be answered without waiting."""
        ...

    async def catch_up(self, ask: Ask, wait_s: float) -> None:
        """Wait until a question is settled, within limits."""
        ...

    def answer(self, ask: Ask) -> Answer:
        """Answer slot by slot. Raises Invalid."""
        ...


class Searches:
    """The one line of questions to a shard, over all its connections."""

    def __init__(
        self, max_waiting: int = MAX_WAITING, now_s: Callable[[], float] = time.monotonic
    ) -> None:
        self._queue = BoundedQueue("shard", 1, max_waiting, MAX_WAIT_S)
        self._now_s = now_s
        _WAITING.set_function(lambda: self._queue.waiting)

    def submit(
        self, within_s: float, search: Callable[[], None], refuse: Callable[[Busy], None]
    ) -> None:
        """Call `search` at its turn, or `refuse` where that would not come within the time."""
        ends_s = self._now_s() + min(within_s, MAX_WAIT_S)

        def turn() -> None:
            try:
                if self._now_s() > ends_s:
                    refuse(self._queue.busy())
                else:
                    search()
            finally:
                self._queue.leave(ticket, self._now_s())

        def admit() -> None:
            asyncio.get_running_loop().call_soon(turn)

        try:
            ticket = self._queue.enter(self._now_s(), admit)
        except Busy as busy:
            refuse(busy)


class ShardProtocol(asyncio.Protocol):
    """One connection of a router."""

    def __init__(
        self,
        shard: Answering,
        searches: Searches,
        token: Callable[[], str],
        connections: set[ShardProtocol],
    ) -> None:
        self._shard = shard
        self._searches = searches
        self._token = token
        self._connections = connections
        self._splitter = wire.Splitter()
        self._greeted = False
        self._transport: asyncio.Transport | None = None
        self._waiting: set[asyncio.Task[None]] = set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        # uvloop's transports keep the interface without inheriting from asyncio's class.
        self._transport = cast("asyncio.Transport", transport)
        self._connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget questions whose asker is gone."""
        self._connections.discard(self)
        self._transport = None
        for task in self._waiting:
            task.cancel()

    def pause_writing(self) -> None:
        """Read no further questions while answers are not taken off."""
        if self._transport is not None:
            self._transport.pause_reading()

    def resume_writing(self) -> None:
        """Read again."""
        if self._transport is not None:
            self._transport.resume_reading()

    def data_received(self, data: bytes) -> None:
        """Handle every frame that is complete."""
        try:
            for payload in self._splitter.feed(data):
                self._handle(wire.decode(payload))
        except (Invalid, Denied) as error:
            log.warning("connection closed", extra={"why": str(error)})
            self._send_error(0, error)
            self.close()

    def close(self) -> None:
        """Close after what was written."""
        if self._transport is not None:
            self._transport.close()

    def _handle(self, frame: Frame) -> None:
        if not self._greeted:
            self._greet(frame)
        elif frame.kind is not Kind.SEARCH:
            raise Invalid("frame type", frame.kind.name, "SEARCH after HELLO")
        else:
            self._search(frame)

    def _greet(self, frame: Frame) -> None:
        if frame.kind is not Kind.HELLO:
            raise Invalid("frame type", frame.kind.name, "HELLO first")
        hello = wire.hello(frame.body)
        if not hmac.compare_digest(hello.token.encode(), self._token().encode()):
            raise Denied("token is not this cluster's")
        if wire.VERSION not in hello.versions:
            raise Invalid("versions", hello.versions, f"a list that holds {wire.VERSION}")
        self._greeted = True
        self._send(Frame(Kind.WELCOME, frame.id, 0, {"version": wire.VERSION}))

    def _search(self, frame: Frame) -> None:
        try:
            ask = wire.ask(frame.body)
        except Invalid as error:
            self._send_error(frame.id, error)
            return
        if self._shard.settled(ask):
            self._submit(frame, ask)
            return
        task = asyncio.ensure_future(self._answer_later(frame, ask))
        self._waiting.add(task)
        task.add_done_callback(self._waiting.discard)

    async def _answer_later(self, frame: Frame, ask: Ask) -> None:
        await self._shard.catch_up(ask, frame.deadline_ms / 1000)
        self._submit(frame, ask)

    def _submit(self, frame: Frame, ask: Ask) -> None:
        self._searches.submit(
            frame.deadline_ms / 1000,
            lambda: self._answer(frame.id, ask),
            lambda busy: self._refuse(frame.id, busy),
        )

    def _refuse(self, id_: int, busy: Busy) -> None:
        _BUSY.inc()
        self._send_error(id_, busy)

    def _answer(self, id_: int, ask: Ask) -> None:
        if self._transport is None:
            return  # the asker went away while the question stood in line
        try:
            with _SEARCH_SECONDS.time():
                answer = self._shard.answer(ask)
        except ChatbotError as error:
            self._send_error(id_, error)
            return
        for reason, slots in answer.refused.items():
            _REFUSED.labels(reason.value).inc(len(slots))
        self._send(Frame(Kind.FOUND, id_, 0, wire.answer_body(answer)))

    def _send_error(self, id_: int, error: ChatbotError) -> None:
        self._send(Frame(Kind.FAILED, id_, 0, wire.error_body(error)))

    def _send(self, frame: Frame) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(wire.encode(frame))


@contextlib.asynccontextmanager
async def serve_shard(
    shard: Answering,
    token: Callable[[], str],
    host: str,
    port: int,
    max_waiting: int = MAX_WAITING,
) -> AsyncIterator[int]:
    """Serve inside the context; yield the real port (0 takes a free one). Raises Unavailable."""
    connections: set[ShardProtocol] = set()
    searches = Searches(max_waiting)
    loop = asyncio.get_running_loop()
    try:
        server = await loop.create_server(
            lambda: ShardProtocol(shard, searches, token, connections), host, port, backlog=256
        )
    except OSError as error:
        raise Unavailable(f"port {port} on {host}", error.strerror or "cannot listen") from error
    try:
        real_port: int = server.sockets[0].getsockname()[1]
        yield real_port
    finally:
        server.close()
        for connection in tuple(connections):
            connection.close()
        await server.wait_closed()
        await asyncio.sleep(0)  # a transport closes its socket in the loop's next turn
