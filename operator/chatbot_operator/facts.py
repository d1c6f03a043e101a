"""What is polled: Secrets by name and RuntimeStatus, kept as facts by object.

A failed look never erases a fact. A Secret whose read failed stays as it was and ages; a runtime
that failed three looks in a row is unknown, its last status kept beside.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Final, TypeAlias

from chatbot_core import names
from chatbot_core.runtime_config import RuntimeStatus
from chatbot_operator import entries
from chatbot_operator.kinds import Object
from chatbot_operator.model import Fact, Secret, WantedSecret
from chatbot_operator.store import OwnerKey

#: Whose Secret, and its name.
SecretKey: TypeAlias = tuple[OwnerKey, str]

#: So many failed looks in a row make a runtime unknown; one lost packet does not.
FAILURES_TO_UNKNOWN: Final = 3


class SecretFacts:
    """Which Secrets are wanted and what is known of them; of values only the internal token."""

    def __init__(self, wake: Callable[[OwnerKey], None]) -> None:
        self._wake = wake
        self._wanted: dict[OwnerKey, tuple[WantedSecret, ...]] = {}
        self._facts: dict[OwnerKey, dict[str, Fact[Secret]]] = {}
        self._tokens: dict[OwnerKey, str] = {}

    def want(self, owner: OwnerKey, wanted: tuple[WantedSecret, ...]) -> None:
        """Replace the names that the owner's last plan asked for."""
        self._wanted[owner] = wanted
        names_wanted = {item.name for item in wanted}
        held = self._facts.get(owner, {})
        self._facts[owner] = {name: fact for name, fact in held.items() if name in names_wanted}

    def wanted(self, owner: OwnerKey) -> tuple[WantedSecret, ...]:
        """Return what the owner's last plan asked for."""
        return self._wanted.get(owner, ())

    def of_owner(self, owner: OwnerKey) -> Mapping[str, Fact[Secret]]:
        """Return the fact of every wanted name; not looked at yet = unknown."""
        return {item.name: self.fact((owner, item.name)) for item in self.wanted(owner)}

    def fact(self, key: SecretKey) -> Fact[Secret]:
        """Return what is known of one Secret."""
        owner, name = key
        return self._facts.get(owner, {}).get(name) or Fact[Secret].unknown()

    def token(self, owner: OwnerKey) -> str:
        """Return the token between the owner's processes, "" while unknown."""
        return self._tokens.get(owner, "")

    def read(self, key: SecretKey, obj: Object | None, at_s: float) -> None:
        """Take what a live read gave (None = absent); wakes the owner when that is news."""
        owner, name = key
        value = None if obj is None else entries.secret(obj)
        old = self.fact(key)
        self._facts.setdefault(owner, {})[name] = Fact(value, at_s, known=True)
        if name == names.internal_secret(owner[1]):
            self._keep_token(owner, obj)
        if not old.known or not _same_secret(old.value, value):
            self._wake(owner)

    def forget(self, owner: OwnerKey) -> None:
        """Drop everything about an owner."""
        self._wanted.pop(owner, None)
        self._facts.pop(owner, None)
        self._tokens.pop(owner, None)

    def _keep_token(self, owner: OwnerKey, obj: Object | None) -> None:
        encoded = ((obj or {}).get("data") or {}).get(names.KEY_TOKEN) or ""
        self._tokens[owner] = base64.b64decode(encoded).decode(errors="replace")


class RuntimeFacts:
    """The last RuntimeStatus of every owner."""

    def __init__(self, wake: Callable[[OwnerKey], None]) -> None:
        self._wake = wake
        self._facts: dict[OwnerKey, Fact[RuntimeStatus]] = {}
        self._failures: dict[OwnerKey, int] = {}
        self._tags: dict[OwnerKey, tuple[str, str]] = {}

    def fact(self, owner: OwnerKey) -> Fact[RuntimeStatus]:
        """Return the last status and whether it is still known."""
        return self._facts.get(owner, Fact[RuntimeStatus].unknown())

    def tag(self, owner: OwnerKey) -> tuple[str, str]:
        """Return who gave the last answer and its tag, two empty texts before the first."""
        return self._tags.get(owner, ("", ""))

    def tagged(self, owner: OwnerKey, address: str, tag: str) -> None:
        """Keep the tag of the answer that an address gave."""
        self._tags[owner] = (address, tag)

    def answered(self, owner: OwnerKey, status: RuntimeStatus, at_s: float) -> bool:
        """Take an answer; return whether it is news, which also wakes the owner."""
        old = self.fact(owner)
        self._failures[owner] = 0
        self._facts[owner] = Fact(status, at_s, known=True)
        news = not old.known or old.value is None or _ageless(old.value) != _ageless(status)
        if news:
            self._wake(owner)
        return news

    def failed(self, owner: OwnerKey) -> None:
        """Take a failed look; after three in a row the fact is unknown, which wakes the owner."""
        self._failures[owner] = self._failures.get(owner, 0) + 1
        fact = self.fact(owner)
        if fact.known and self._failures[owner] >= FAILURES_TO_UNKNOWN:
            self._facts[owner] = replace(fact, known=False)
            self._wake(owner)

    def forget(self, owner: OwnerKey) -> None:
        """Drop everything about an owner."""
        self._facts.pop(owner, None)
        self._failures.pop(owner, None)
        self._tags.pop(owner, None)


def _same_secret(old: Secret | None, new: Secret | None) -> bool:
    if old is None or new is None:
        return old is new
    return old.keys == new.keys and entries.same_child(old.child, new.child)


def _ageless(status: RuntimeStatus) -> RuntimeStatus:
    # Ages differ in every answer; a pass reads who is there and what they run.
    members = tuple(member.model_copy(update={"age_s": 0.0}) for member in status.members)
    return status.model_copy(update={"members": members})
