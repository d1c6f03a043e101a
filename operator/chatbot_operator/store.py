"""Facts by key, filled by feeders, read by passes; a changed value wakes its owner.

The answer to a write of ours enters at once and shields its key: until the watch has shown that
version, older news about the key is ignored. Without it a pass would undo or repeat what the one
before has just done. Versions are resourceVersions of one kind, which compare as integers.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Generic, TypeAlias, TypeVar

K = TypeVar("K")
V = TypeVar("V")

#: Namespace and name of a ChatbotCluster: the key of all work.
OwnerKey: TypeAlias = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Entry(Generic[V]):
    """One value, whose it is, and the version at which it was seen."""

    value: V
    owner: OwnerKey
    version: int


class Store(Generic[K, V]):
    """Values by key, grouped by owner. `same` says whether a change is worth a pass."""

    def __init__(
        self, wake: Callable[[OwnerKey], None], same: Callable[[V, V], bool] = lambda a, b: a == b
    ) -> None:
        self._wake = wake
        self._same = same
        self._entries: dict[K, Entry[V]] = {}
        self._keys_of: dict[OwnerKey, dict[K, None]] = {}
        self._shields: dict[K, int] = {}
        self._meanwhile: dict[str, dict[K, int]] = {}
        self._gone: dict[K, int] = {}
        self._listed_at: dict[str, int] = {}
        self._scopes: dict[str, bool] = {}
        self._scope_of: dict[K, str] = {}
        self._all_listed = asyncio.Event()

    async def until_complete(self) -> None:
        """Wait until every expected scope was listed once."""
        await self._all_listed.wait()

    def expect(self, scope: str) -> None:
        """Say that a feeder will list this scope; the store is incomplete until it has."""
        self._scopes.setdefault(scope, False)

    @property
    def complete(self) -> bool:
        """Whether every expected scope was listed at least once."""
        return all(self._scopes.values())

    def get(self, key: K) -> V | None:
        """Return the value of a key, or None where there is none."""
        entry = self._entries.get(key)
        return None if entry is None else entry.value

    def owner_of(self, key: K) -> OwnerKey | None:
        """Return whose value a key has, or None where there is none."""
        entry = self._entries.get(key)
        return None if entry is None else entry.owner

    def versions(self, scope: str) -> dict[K, int]:
        """Return the version of every key of a scope."""
        return {
            key: self._entries[key].version for key, at in self._scope_of.items() if at == scope
        }

    def owners(self) -> tuple[OwnerKey, ...]:
        """Return every owner that has a value."""
        return tuple(self._keys_of)

    def of_owner(self, owner: OwnerKey) -> dict[K, V]:
        """Return all values of one owner."""
        return {key: self._entries[key].value for key in self._keys_of.get(owner, ())}

    def settled(self, owner: OwnerKey) -> bool:
        """Whether the watch has shown every write of ours to this owner's keys."""
        return not any(key in self._shields for key in self._keys_of.get(owner, ()))

    def listing(self, scope: str) -> None:
        """Say that a list of a scope begins: what is told of it meanwhile may be newer.

        A list of many pages takes a while, and the ChatbotClusters are watched by somebody else.
        """
        self._meanwhile[scope] = {}

    def replace(self, scope: str, listed: Mapping[K, Entry[V]], version: int) -> None:
        """Take a complete list of a scope: what it lacks has vanished, unless it is newer."""
        newer = {key for key, at in self._meanwhile.pop(scope, {}).items() if at > version}
        gone = [
            key for key, where in self._scope_of.items() if where == scope and key not in listed
        ]
        for key in gone:
            if key not in newer and self._shields.get(key, 0) <= version:
                self._drop(key, version)
        for key, entry in listed.items():
            # The list shows every write up to its version, also where the object is older.
            if key not in newer and self._shields.get(key, 0) <= version:
                self._shields.pop(key, None)
                self._put(scope, key, entry)
        began_again = version < self._listed_at.get(scope, 0)
        self._listed_at[scope] = version
        self._gone = {k: at for k, at in self._gone.items() if at > version and not began_again}
        self._scopes[scope] = True
        if self.complete:
            self._all_listed.set()

    def seen(self, scope: str, key: K, entry: Entry[V]) -> None:
        """Take one event of a watch, unless newer news is known.

        A watch that goes on at another API server may tell again what was true before.
        """
        if entry.version < self._newest(key):
            return
        self._shields.pop(key, None)
        self._put(scope, key, entry)

    def vanished(self, key: K, version: int) -> None:
        """Take the news that the key has no object at this version, unless newer is known."""
        if version >= self._newest(key):
            self._drop(key, version)

    def _newest(self, key: K) -> int:
        entry = self._entries.get(key)
        known = 0 if entry is None else entry.version
        return max(known, self._shields.get(key, 0), self._gone.get(key, 0))

    def _drop(self, key: K, version: int) -> None:
        self._shields.pop(key, None)
        self._gone[key] = version
        self._note(self._scope_of.get(key, ""), key, version)
        entry = self._remove(key)
        if entry is not None:
            self._wake(entry.owner)

    def wrote(self, scope: str, key: K, entry: Entry[V]) -> None:
        """Take the answer to a write of ours; does not wake: the writer knows.

        The watch may be faster than the answer, also with the news of a deletion after it.
        """
        old = self._entries.get(key)
        known = self._gone.get(key, 0) if old is None else old.version
        if known >= entry.version:
            return
        self._insert(scope, key, entry)
        self._shields[key] = entry.version

    def forget(self, keys: Iterable[K]) -> None:
        """Drop keys without waking anybody."""
        for key in tuple(keys):
            self._shields.pop(key, None)
            self._remove(key)

    def _put(self, scope: str, key: K, entry: Entry[V]) -> None:
        old = self._entries.get(key)
        self._insert(scope, key, entry)
        if old is None or old.owner != entry.owner or not self._same(old.value, entry.value):
            self._wake(entry.owner)
            if old is not None and old.owner != entry.owner:
                self._wake(old.owner)

    def _insert(self, scope: str, key: K, entry: Entry[V]) -> None:
        self._remove(key)
        self._note(scope, key, entry.version)
        self._entries[key] = entry
        self._scope_of[key] = scope
        self._keys_of.setdefault(entry.owner, {})[key] = None

    def _note(self, scope: str, key: K, version: int) -> None:
        if scope in self._meanwhile:
            self._meanwhile[scope][key] = version

    def _remove(self, key: K) -> Entry[V] | None:
        entry = self._entries.pop(key, None)
        self._scope_of.pop(key, None)
        if entry is not None:
            keys = self._keys_of[entry.owner]
            keys.pop(key, None)
            if not keys:
                del self._keys_of[entry.owner]
        return entry
