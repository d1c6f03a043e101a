"""Request bodies before anything reads them: bounded, UTF-8, and uploads as a stream."""

from __future__ import annotations

from collections.abc import AsyncIterator, MutableMapping
from email.message import Message as Header
from typing import Any, Final
from urllib.parse import unquote

from fastapi import Request
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from chatbot_core.errors import Invalid, TooLarge
from chatbot_runtime.routes import problems

#: Largest JSON body.
JSON_MAX_BYTES: Final = 64 * 1024
UPLOAD_PATH: Final = "/api/documents"
_WITHOUT_BODY: Final = frozenset({"GET", "HEAD", "OPTIONS", "DELETE"})
_HEADERS_MAX_BYTES: Final = 16 * 1024


class BoundedBodies:
    """ASGI middleware: reads small bodies whole, refuses larger ones and broken UTF-8."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass uploads and requests without a body on untouched."""
        if scope["type"] != "http" or scope["method"] in _WITHOUT_BODY or _is_upload(scope):
            await self._app(scope, receive, send)
            return
        body = bytearray()
        more = True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            body += message.get("body", b"")
            more = message.get("more_body", False)
            if len(body) > JSON_MAX_BYTES:
                error = TooLarge("body", f"more than {JSON_MAX_BYTES} bytes", "smaller")
                await problems.response(problems.problem(error))(scope, receive, send)
                return
        try:
            body.decode()
        except UnicodeDecodeError:
            answer = problems.problem(Invalid("body", "bytes that are not UTF-8", "UTF-8"))
            answer |= {"status": 400, "title": "Bad request"}
            await problems.response(answer)(scope, receive, send)
            return
        await self._app(scope, _replay(bytes(body), receive), send)


def _is_upload(scope: Scope) -> bool:
    path: str = scope["path"]
    return path == UPLOAD_PATH


def _replay(body: bytes, receive: Receive) -> Receive:
    given = False

    async def replayed() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replayed


class Upload:
    """An upload's file name and bytes, from a multipart form's first file or from a raw body."""

    def __init__(self, name: str, content: AsyncIterator[bytes]) -> None:
        self.name = name
        self.content = content

    @classmethod
    async def of(cls, request: Request, name: str, limit_bytes: int) -> Upload:
        """Return the upload as far as its name is known.

        Raises TooLarge where the length is announced and too much, Invalid without a name or
        file. What is not announced is counted by who reads the content.
        """
        announced = request.headers.get("content-length", "")
        if announced.isdigit() and int(announced) > limit_bytes + _HEADERS_MAX_BYTES:
            raise TooLarge("content", f"{announced} bytes", f"at most {limit_bytes} bytes")
        kind, options = parse_options_header(request.headers.get("content-type", ""))
        if kind != b"multipart/form-data":
            if not name:
                raise Invalid("name", "", "given as ?name=, or send multipart/form-data")
            return cls(name, request.stream())
        boundary = options.get(b"boundary", b"")
        if not boundary:
            raise Invalid("content-type", "no boundary", "multipart/form-data; boundary=...")
        part = _FilePart(request.stream(), boundary)
        found = await part.name()
        return cls(name or found, part.content())


class _FilePart:
    """Reads the first file of a multipart body (RFC 7578) without holding it in memory."""

    def __init__(self, stream: AsyncIterator[bytes], boundary: bytes) -> None:
        self._stream = stream
        self._field = b""
        self._value = b""
        self._header: MutableMapping[str, str] = {}
        self._header_bytes = 0
        self._file_name: str | None = None
        self._done = False
        self._inside = False
        self._ready: list[bytes] = []
        callbacks: dict[str, Any] = {
            "on_part_begin": self._begin,
            "on_header_field": self._on_field,
            "on_header_value": self._on_value,
            "on_header_end": self._on_header,
            "on_headers_finished": self._on_headers,
            "on_part_data": self._on_data,
            "on_part_end": self._end,
        }
        self._parser: Any = MultipartParser(boundary, callbacks)  # type: ignore[arg-type]  # its own TypedDict

    async def name(self) -> str:
        """Read until a file begins and return its name. Raises Invalid where none does."""
        while self._file_name is None:
            if not await self._more():
                raise Invalid("file", "no file", "a multipart part with a filename")
        return self._file_name

    async def content(self) -> AsyncIterator[bytes]:
        """Yield the file's bytes. Raises Invalid where the body ends in the middle."""
        while True:
            ready, self._ready = self._ready, []
            for block in ready:
                yield block
            if self._done:
                return
            if not await self._more():
                raise Invalid("file", "a body that ends early", "complete")

    async def _more(self) -> bool:
        from python_multipart.exceptions import MultipartParseError

        try:
            block = await anext(self._stream)
            if block:
                self._parser.write(block)
        except StopAsyncIteration:
            return False
        except MultipartParseError as error:
            raise Invalid("body", str(error)[:80], "multipart/form-data (RFC 7578)") from None
        return True

    def _begin(self) -> None:
        self._header = {}

    def _on_field(self, data: bytes, start: int, end: int) -> None:
        self._count(end - start)
        self._field += data[start:end]

    def _on_value(self, data: bytes, start: int, end: int) -> None:
        self._count(end - start)
        self._value += data[start:end]

    def _count(self, size: int) -> None:
        self._header_bytes += size
        if self._header_bytes > _HEADERS_MAX_BYTES:
            raise TooLarge("headers of a part", f"{self._header_bytes} bytes", "smaller")

    def _on_header(self) -> None:
        self._header[self._field.decode("latin-1").lower()] = self._value.decode("utf-8", "replace")
        self._field = self._value = b""

    def _on_headers(self) -> None:
        header = Header()
        header["content-disposition"] = self._header.get("content-disposition", "")
        name = header.get_filename()
        self._inside = self._file_name is None and name is not None
        if self._inside:
            self._file_name = unquote(str(name)).replace("\\", "/").rsplit("/", 1)[-1]

    def _on_data(self, data: bytes, start: int, end: int) -> None:
        if self._inside:
            self._ready.append(data[start:end])

    def _end(self) -> None:
        self._done = self._done or self._inside
        self._inside = False
