"""Few plain requests to an API server, for what the start itself needs."""

import http.client
import json
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from localkube.errors import ClusterError

_CONFLICT = 409
_ANY_TIME = datetime.min.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Api:
    """An API server on the loopback, spoken to as the administrator of its pki folder."""

    port: int
    pki: Path

    def request(
        self, method: str, path: str, body: object = None, timeout_s: float = 5.0
    ) -> tuple[int, bytes]:
        """Return status and body; raises `OSError` when the server cannot be reached."""
        trust = ssl.create_default_context(cafile=str(self.pki / "ca.crt"))
        trust.load_cert_chain(self.pki / "admin.crt", self.pki / "admin.key")
        connection = http.client.HTTPSConnection(
            "127.0.0.1", self.port, context=trust, timeout=timeout_s
        )
        try:
            text = None if body is None else json.dumps(body)
            connection.request(method, path, text, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            return answer.status, answer.read()
        except http.client.HTTPException as error:
            raise ConnectionError(str(error)) from error
        finally:
            connection.close()

    def get(self, path: str) -> Any:
        """Return the object at the path, or None when there is none (or no answer)."""
        try:
            status, body = self.request("GET", path)
        except OSError:
            return None
        return json.loads(body) if status == http.client.OK else None

    def ready(self) -> bool:
        """Whether the server answers `/readyz` with 200."""
        try:
            return self.request("GET", "/readyz")[0] == http.client.OK
        except OSError:
            return False

    def create(self, path: str, document: object) -> None:
        """Create the object unless it is there; raises `ClusterError` when it is refused."""
        status, body = self.request("POST", path, document)
        if status not in {http.client.CREATED, _CONFLICT}:
            message = f"POST {path}: {status} {body.decode(errors='replace')}"
            raise ClusterError(message)

    def node_ready(self, name: str, since: datetime = _ANY_TIME) -> bool:
        """Whether the node's condition `Ready` is true and was confirmed since then.

        After a restart the object still says what was true before it.
        """
        node = self.get(f"/api/v1/nodes/{name}") or {}
        conditions = node.get("status", {}).get("conditions", [])
        return any(
            (condition["type"], condition["status"]) == ("Ready", "True")
            and datetime.fromisoformat(condition["lastHeartbeatTime"]) >= since
            for condition in conditions
        )


def wait_until(
    holds: Callable[[], bool], what: str, timeout_s: float, broken: Callable[[], str | None]
) -> None:
    """Poll until it holds; raises `ClusterError` at the timeout or as soon as it is broken."""
    deadline_s = time.monotonic() + timeout_s
    while not holds():
        reason = broken()
        if reason is None and time.monotonic() > deadline_s:
            reason = f"not within {timeout_s:.0f} s"
        if reason is not None:
            message = f"{what}: {reason}"
            raise ClusterError(message)
        time.sleep(0.1)
