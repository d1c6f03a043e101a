"""Where a fault strikes: one request or watch event of an operator, by what it is about.

A position is (verb, kind, name, how often this has come before), not a number in a row: two runs
of the same workflow order independent things differently.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from chatbot_core import names
from chatbot_operator.kinds import RESOURCES

WRITES = frozenset({"create", "apply", "apply-status", "replace", "delete"})
_KINDS = {resource.plural: kind for kind, resource in RESOURCES.items()}
_VERBS = {"POST": "create", "PATCH": "apply", "PUT": "replace", "DELETE": "delete", "GET": "get"}


@dataclass(frozen=True, slots=True, order=True)
class What:
    """One sort of request or event."""

    verb: str
    kind: str
    name: str

    @property
    def is_write(self) -> bool:
        return self.verb in WRITES

    @property
    def is_news(self) -> bool:
        """Whether it only tells people something."""
        return self.verb == "apply-status" or self.kind == "Event"

    def __str__(self) -> str:
        return f"{self.verb} {self.kind}/{self.name}"


@dataclass(frozen=True, slots=True, order=True)
class Position:
    """The `nth` of its sort since the workflow began, counted from 1."""

    what: What
    nth: int

    def __str__(self) -> str:
        return f"{self.what}#{self.nth}"

    @classmethod
    def parse(cls, text: str) -> Position:
        sort, _, nth = text.rpartition("#")
        verb, _, place = sort.partition(" ")
        kind, _, name = place.partition("/")
        return cls(What(verb, kind, name), int(nth))


@dataclass(slots=True)
class Ledger:
    """Every position that has come, in order."""

    seen: list[Position] = field(default_factory=list)
    _counts: Counter[What] = field(default_factory=Counter)

    def enter(self, what: What) -> Position:
        self._counts[what] += 1
        position = Position(what, self._counts[what])
        self.seen.append(position)
        return position


def of_request(method: str, path: str, watches: bool, body: bytes) -> What | None:
    """Return what a request is about, None where it is about none of our kinds (discovery)."""
    parts = path.strip("/").split("/")
    place = next((i for i, part in enumerate(parts) if part in _KINDS and i >= 2), None)
    if place is None:
        return None
    kind, rest = _KINDS[parts[place]], parts[place + 1 :]
    verb = _VERBS[method]
    if method == "GET" and not rest:
        return What("watch" if watches else "list", kind, "")
    if rest[1:] == ["status"]:
        verb = "apply-status"
    return What(verb, kind, rest[0] if rest else _name_in(kind, body))


def _name_in(kind: str, body: bytes) -> str:
    obj = json.loads(body)
    # An Event's name is random; what it says is not.
    return str(obj["reason"] if kind == "Event" else obj["metadata"]["name"])


def of_event(kind: str, event: dict[str, Any]) -> What:
    """Return what a watch event is about; pods go by their component, since names are random."""
    meta = event["object"].get("metadata") or {}
    name = str(meta.get("name", ""))
    if kind == "Pod":
        name = str((meta.get("labels") or {}).get(names.LABEL_COMPONENT, ""))
    return What(str(event["type"]), kind, name)
