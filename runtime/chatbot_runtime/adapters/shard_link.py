"""One connection from a router to a shard: many questions in flight, told apart by id."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import cast

from chatbot_core.errors import Bug, Busy, ChatbotError, Denied, Invalid, Unavailable
from chatbot_core.retry import Deadline
from chatbot_runtime.adapters import wire
from chatbot_runtime.adapters.wire import Frame, Kind
from chatbot_runtime.domain.scatter import Answer, Ask
from chatbot_runtime.ports import Clock

CONNECT_S = 1.0
_BUSY_S = 1.0


class ShardLink:
    """Opens its connection at the first question and again after it was lost."""

    def __init__(self, address: str, token: Callable[[], str], clock: Clock) -> None:
        self._host, _, port = address.rpartition(":")
        self._port = int(port)
        self._token = token
        self._clock = clock
        self._connection: _Connection | None = None
        self._opening = asyncio.Lock()
        self.in_flight = 0

    async def ask(self, ask: Ask, deadline: Deadline) -> Answer:
        """Return the shard's answer.

        Raises Unavailable when it gave none in time, Invalid, Denied and Busy as the shard said.
        A connection that stayed silent all the time is opened anew: a process that vanished with
        its machine closes nothing.
        """
        self.in_flight += 1
        connection, heard = self._connection, 0
        try:
            async with asyncio.timeout(deadline.left_s(self._clock.monotonic_s())):
                if connection is None or connection.lost:
                    connection = await self._connected()
                heard = connection.heard
                left_ms = deadline.left_ms(self._clock.monotonic_s())
                body = await connection.request(Kind.SEARCH, wire.ask_body(ask), left_ms)
        except TimeoutError:
            if connection is not None and connection.heard == heard:
                connection.close()
            raise Unavailable("shard", "no answer in time") from None
        finally:
            self.in_flight -= 1
        try:
            return wire.answer(body)
        except Invalid as error:
            self.close()
            raise Unavailable("shard", "its answer cannot be read") from error

    def close(self) -> None:
        """Close the connection; questions in flight fail with Unavailable."""
        if self._connection is not None:
            self._connection.close()

    async def _connected(self) -> _Connection:
        async with self._opening:
            if self._connection is not None and not self._connection.lost:
                return self._connection
            try:
                async with asyncio.timeout(CONNECT_S):
                    _, connection = await asyncio.get_running_loop().create_connection(
                        _Connection, self._host.strip("[]"), self._port
                    )
            except (OSError, TimeoutError) as error:
                raise Unavailable("shard", "no connection") from error
            hello = wire.hello_body(wire.Hello(self._token()))
            try:
                async with asyncio.timeout(CONNECT_S):
                    await connection.request(Kind.HELLO, hello, 0)
            except TimeoutError as error:
                connection.close()
                raise Unavailable("shard", "no greeting") from error
            except BaseException:
                connection.close()
                raise
            self._connection = connection
            return connection


class _Connection(asyncio.Protocol):
    def __init__(self) -> None:
        self.lost = False
        self.heard = 0  # messages, to tell a slow process from a silent one
        self._transport: asyncio.Transport | None = None
        self._splitter = wire.Splitter()
        self._waiting: dict[int, asyncio.Future[object]] = {}
        self._last_id = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports keep the interface without inheriting from asyncio's class.
        self._transport = cast("asyncio.Transport", transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self._fail(Unavailable("shard", "connection lost"))

    def data_received(self, data: bytes) -> None:
        try:
            for payload in self._splitter.feed(data):
                self._take(wire.decode(payload))
        except Invalid:
            self.close()

    def close(self) -> None:
        self._fail(Unavailable("shard", "connection closed"))
        if self._transport is not None:
            self._transport.close()

    async def request(self, kind: Kind, body: object, deadline_ms: int) -> object:
        if self.lost or self._transport is None:
            raise Unavailable("shard", "connection lost")
        self._last_id += 1
        id_ = self._last_id
        frame = wire.encode(Frame(kind, id_, deadline_ms, body))
        answered: asyncio.Future[object] = asyncio.get_running_loop().create_future()
        self._waiting[id_] = answered
        try:
            self._transport.write(frame)
            return await answered
        finally:
            self._waiting.pop(id_, None)

    def _take(self, frame: Frame) -> None:
        self.heard += 1
        if frame.kind is Kind.FAILED and frame.id == 0:
            self._fail(_error(frame.body))
            return
        answered = self._waiting.get(frame.id)
        if answered is None or answered.done():
            return  # the asker went away
        if frame.kind is Kind.FAILED:
            answered.set_exception(_error(frame.body))
        else:
            answered.set_result(frame.body)

    def _fail(self, error: ChatbotError) -> None:
        self.lost = True
        for answered in self._waiting.values():
            if not answered.done():
                answered.set_exception(error)


def _error(body: object) -> ChatbotError:
    """Return what a FAILED frame says as an error of ours."""
    kind, message = wire.error(body)
    if kind == "denied":
        return Denied(f"shard: {message}")
    if kind == "busy":
        return Busy("shard", _BUSY_S)
    if kind == "invalid":
        return Invalid("question to a shard", message, "what a shard accepts")
    return Bug(f"shard: {message}")
