"""What the API server wrote down about writes: the judge of the operator's own counters."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

OPERATOR: Final = "system:serviceaccount:chatbot-system:chatbot-operator"
#: The operator's verbs by what the API server calls them.
VERBS: Final = {
    "apply": "patch",
    "apply-status": "patch",
    "replace": "update",
    "create": "create",
    "delete": "delete",
}


@dataclass(frozen=True, slots=True)
class Write:
    """One answered write request; times are seconds since the epoch."""

    user: str
    verb: str
    resource: str
    namespace: str
    name: str
    subresource: str
    began_s: float
    ended_s: float


@dataclass(frozen=True, slots=True)
class AuditLog:
    """The log file of a test server."""

    path: Path

    def writes(self, since_s: float = 0.0) -> list[Write]:
        """Return every write that was answered since a time."""
        # A log that grew too long is moved aside once, under its name and the time.
        files = [*sorted(self.path.parent.glob("audit-*.log")), self.path]
        found = (write for file in files for write in _writes(file))
        return [write for write in found if write.ended_s >= since_s]

    def of_operator(self, since_s: float = 0.0) -> list[Write]:
        """Return the operator's writes, renewals of its Lease left out."""
        return [
            one for one in self.writes(since_s) if one.user == OPERATOR and one.resource != "leases"
        ]


def by_verb(writes: list[Write]) -> Counter[str]:
    """Return how many writes of each verb there are, as the API server names verbs."""
    return Counter(one.verb for one in writes)


def _writes(file: Path) -> Iterator[Write]:
    with file.open() as lines:
        for line in lines:
            if not line.endswith("\n"):
                return
            entry = json.loads(line)
            about = entry.get("objectRef") or {}
            yield Write(
                user=entry["user"]["username"],
                verb=entry["verb"],
                resource=about.get("resource", ""),
                namespace=about.get("namespace", ""),
                name=about.get("name", ""),
                subresource=about.get("subresource", ""),
                began_s=_epoch_s(entry["requestReceivedTimestamp"]),
                ended_s=_epoch_s(entry["stageTimestamp"]),
            )


def _epoch_s(text: str) -> float:
    return datetime.fromisoformat(text).astimezone(UTC).timestamp()
