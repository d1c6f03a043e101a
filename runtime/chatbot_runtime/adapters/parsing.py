"""Documents to text in a confined child process; the worker outlives whatever a file does."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from chatbot_core.errors import Bug, Invalid
from chatbot_runtime.domain import sniffing
from chatbot_runtime.domain.model import ParsedText

#: Text a document may hold, whatever its size, and as a multiple of its size.
MAX_TEXT_BYTES: Final = 64 * 1024 * 1024
MAX_EXPANSION: Final = 50
#: Small files may expand further: an empty PDF page costs a few bytes.
_LEAST_TEXT_BYTES: Final = 64 * 1024
_WALL_TIME_S: Final = 60.0
_LINE_LIMIT_BYTES: Final = 256 * 1024 * 1024
_CHILD: Final = Path(__file__).with_name("parse_child.py")


@dataclass(slots=True)
class _Text:
    """What has been read so far, without the characters PostgreSQL's text cannot hold."""

    limit_bytes: int
    parts: list[str] = field(default_factory=list)
    page_starts: list[int] = field(default_factory=list)
    length: int = 0
    size_bytes: int = 0

    def add(self, part: str) -> None:
        clean = part.replace("\x00", "").replace("\r\n", "\n").replace("\r", "\n")
        clean = clean.encode("utf-8", "replace").decode()
        self.size_bytes += len(clean.encode())
        if self.size_bytes > self.limit_bytes:
            raise Invalid(
                "content", f"{self.size_bytes} bytes of text", f"at most {self.limit_bytes} bytes"
            )
        self.parts.append(clean)
        self.length += len(clean)

    def page(self) -> None:
        if self.length:
            self.add("\n")
        self.page_starts.append(self.length)


class ConfinedParser:
    """Implements `Parser`: one child process a document, under seccomp and resource limits."""

    async def parse(self, content: bytes) -> ParsedText:
        """Return the text of a document. Raises Invalid with a readable reason, Bug unconfined."""
        head = content[: sniffing.HEAD_BYTES]
        media_type = sniffing.media_type(head)
        codec = await asyncio.to_thread(sniffing.encoding, content)
        limit = min(MAX_TEXT_BYTES, max(MAX_EXPANSION * len(content), _LEAST_TEXT_BYTES))
        child = await asyncio.create_subprocess_exec(
            *(sys.executable, "-I", "-B", str(_CHILD), media_type, codec),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            limit=_LINE_LIMIT_BYTES,
            env={},
        )
        try:
            async with asyncio.timeout(_WALL_TIME_S):
                return await _conversation(child, content, _Text(limit))
        except TimeoutError:
            raise Invalid("content", "a file", "readable within 60 seconds") from None
        finally:
            with contextlib.suppress(ProcessLookupError):
                child.kill()
            await child.wait()


async def _conversation(
    child: asyncio.subprocess.Process, content: bytes, text: _Text
) -> ParsedText:
    writing = asyncio.create_task(_write(child, content))
    try:
        return await _read(child, text)
    finally:
        writing.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await writing


async def _write(child: asyncio.subprocess.Process, content: bytes) -> None:
    assert child.stdin is not None
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        child.stdin.write(content)
        await child.stdin.drain()
        child.stdin.close()
        await child.stdin.wait_closed()


async def _read(child: asyncio.subprocess.Process, text: _Text) -> ParsedText:
    assert child.stdout is not None
    while line := await child.stdout.readline():
        said = json.loads(line)
        if "part" in said:
            text.add(said["part"])
        elif "page" in said:
            text.page()
        elif "error" in said:
            raise Invalid("content", said["error"], "a readable text, Markdown or PDF file")
        elif "unconfined" in said:
            raise Bug(f"the parser refuses to run unconfined: {said['unconfined']}")
        else:
            return _finished(text)
    code = await child.wait()
    raise Invalid("content", f"the parser ended with {code}", "readable within 30 s and 512 MB")


def _finished(text: _Text) -> ParsedText:
    whole = "".join(text.parts)
    if not whole.strip():
        raise Invalid("content", "no text", "a file with text; scanned pages hold pictures only")
    return ParsedText(whole, tuple(text.page_starts))
