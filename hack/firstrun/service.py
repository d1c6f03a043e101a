"""A client of the service's API with the standard library alone; errors keep their status."""

from __future__ import annotations

import contextlib
import http.client
import json
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MEDIA_TYPES = {".md": "text/markdown", ".txt": "text/plain", ".pdf": "application/pdf"}
REQUEST_TIMEOUT_S = 30.0
ANSWER_TIMEOUT_S = 180.0


class ServiceError(Exception):
    """The service refused or could not be reached; `status` is 0 without an answer."""

    def __init__(self, message: str, status: int = 0, retry_after_s: float = 0.0) -> None:
        super().__init__(message)
        self.status = status
        self.retry_after_s = retry_after_s


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer as streamed: the text, its tokens as they came, what it cites and rests on."""

    text: str
    tokens: int
    citations: tuple[Mapping[str, Any], ...]
    refused: bool
    meta: Mapping[str, Any]
    done: Mapping[str, Any]


class Service:
    """The API at a URL, after a login with a session's bearer token."""

    def __init__(self, url: str, token: str = "") -> None:
        self.url = url.rstrip("/")
        self.token = token

    def login(self, username: str, password: str) -> Service:
        """Return the service as this user sees it."""
        body = {"username": username, "password": password}
        reply = self.call("POST", "/api/auth/login", body)
        return Service(self.url, reply["token"])

    def call(self, method: str, path: str, body: Any = None) -> Any:
        """Send JSON, return JSON (None for an empty reply). Raises ServiceError."""
        data = None if body is None else json.dumps(body).encode()
        raw = self.send(method, path, data, {"Content-Type": "application/json"})
        return json.loads(raw) if raw else None

    def send(self, method: str, path: str, data: bytes | None, headers: Mapping[str, str]) -> bytes:
        """Send bytes, return bytes. Raises ServiceError."""
        with self._open(method, path, data, headers, REQUEST_TIMEOUT_S) as reply, whole(path):
            return bytes(reply.read())

    def upload(self, name: str, content: bytes) -> str:
        """Upload a document; return its id. The same bytes are the same document."""
        media_type = MEDIA_TYPES.get(Path(name).suffix, "application/octet-stream")
        query = urllib.parse.urlencode({"name": name})
        headers = {"Content-Type": media_type}
        reply = json.loads(self.send("POST", f"/api/documents?{query}", content, headers))
        return str(reply["id"])

    def state_of(self, document: str) -> str:
        """Return where a document is on its way: Queued, Processing, Searchable, Failed."""
        return str(self.call("GET", f"/api/documents/{document}")["state"])

    def wait_searchable(self, document: str, timeout_s: float) -> None:
        """Wait until questions find the document. Raises ServiceError when that fails."""
        deadline_s = time.monotonic() + timeout_s
        while (state := self.state_of(document)) != "Searchable":
            if state == "Failed" or time.monotonic() > deadline_s:
                raise ServiceError(f"document {document} is {state} after {timeout_s:.0f} s")
            time.sleep(0.2)

    def ask(
        self,
        question: str,
        on_token: Callable[[str], None] = lambda _: None,
        **options: Any,
    ) -> Answer:
        """Ask and read the streamed answer to its end. Raises ServiceError."""
        body = json.dumps({"question": question, "stream": True, **options}).encode()
        headers = {"Content-Type": "application/json", "Accept": "text/event-stream"}
        meta: Mapping[str, Any] = {}
        citations: list[Mapping[str, Any]] = []
        pieces: list[str] = []
        path = "/api/chat"
        with self._open("POST", path, body, headers, ANSWER_TIMEOUT_S) as reply, whole(path):
            for name, event in events(line.decode() for line in reply):
                match name:
                    case "meta":
                        meta = event
                    case "token":
                        pieces.append(event["text"])
                        on_token(event["text"])
                    case "citation":
                        citations.append(event)
                    case "error":
                        raise ServiceError(f"the answer broke off: {event}", event.get("status", 0))
                    case "done":
                        refused = bool(event.get("refused", meta.get("refused", False)))
                        text = "".join(pieces)
                        return Answer(text, len(pieces), tuple(citations), refused, meta, event)
        raise ServiceError("the answer ended without its last event")

    def _open(
        self,
        method: str,
        path: str,
        data: bytes | None,
        headers: Mapping[str, str],
        timeout_s: float,
    ) -> http.client.HTTPResponse:
        bearer = {"Authorization": f"Bearer {self.token}"} if self.token else {}
        request = urllib.request.Request(  # noqa: S310 - an http URL of our own
            self.url + path, data=data, headers={**headers, **bearer}, method=method
        )
        try:
            reply: http.client.HTTPResponse = urllib.request.urlopen(request, timeout=timeout_s)  # noqa: S310 - as above
        except urllib.error.HTTPError as error:
            with error:
                said = error.read().decode(errors="replace")
            wait_s = float(error.headers.get("Retry-After") or 0)
            message = f"{method} {path}: {error.code} {said[:500]}"
            raise ServiceError(message, error.code, wait_s) from error
        except (OSError, http.client.HTTPException) as error:
            raise ServiceError(f"{method} {path}: {error}") from error
        return reply


@contextlib.contextmanager
def whole(path: str) -> Iterator[None]:
    """Turn a reply that breaks off into ServiceError."""
    try:
        yield
    except (OSError, http.client.HTTPException) as error:
        raise ServiceError(f"{path}: the reply broke off: {error}") from error


def events(lines: Iterator[str]) -> Iterator[tuple[str, Any]]:
    """Yield name and data of each server-sent event (WHATWG HTML, section 9.2)."""
    name, data = "message", ""
    for raw in lines:
        line = raw.rstrip("\r\n")
        if line.startswith("event:"):
            name = line[6:].strip()
        elif line.startswith("data:"):
            data += line[5:].strip()
        elif not line and data:
            yield name, json.loads(data)
            name, data = "message", ""
