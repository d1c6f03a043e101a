"""Has anybody touched what we set: a question to `managedFields`, without the object's values.

Format: sigs.k8s.io/structured-merge-diff `fieldpath/serialize.go` (`f:` field, `k:` list entry by
its keys, `v:` set entry by value, `.` the entry itself). A write that changes a value takes the
leaf away from our Apply entry, whatever the value is; a leaf that is still there was not changed.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Final

from chatbot_operator.model import Json

#: Part of the address of an object, owned by nobody.
_IDENTITY: Final = frozenset({"name", "namespace", "uid", "resourceVersion"})


@lru_cache(maxsize=16)
def fields(managed: str | None) -> Json | None:
    """Return the tree of a child's `managed`, which is kept as text.

    Nobody changes what comes back: the shards of one object have the same fields and share it.
    """
    tree: Json | None = None if managed is None else json.loads(managed)
    return tree


def owns_all(desired: Json, managed: Json | None) -> bool:
    """Return whether our Apply entry still owns every leaf of the desired object.

    `managed` is the `fieldsV1` of that entry, None where it is gone. An empty value in it stands
    for a leaf or for something atomic: all below is ours.
    """
    if managed is None:
        return False
    return all(
        _owns_metadata(value, managed.get("f:metadata"))
        if key == "metadata"
        else _owns_field(key, value, managed)
        for key, value in desired.items()
        if key not in {"apiVersion", "kind"}
    )


def _owns_metadata(metadata: Json, managed: Json | None) -> bool:
    leaves = {key: value for key, value in metadata.items() if key not in _IDENTITY}
    return not leaves or (managed is not None and _owns_map(leaves, managed))


def _owns_field(key: str, value: Any, managed: Json) -> bool:
    below = managed.get(f"f:{key}")
    return below is not None and _owns(value, below)


def _owns_map(value: Json, managed: Json) -> bool:
    return all(_owns_field(key, below, managed) for key, below in value.items())


def _owns(value: Any, managed: Json) -> bool:
    if not managed or not value:
        return True
    if isinstance(value, dict):
        return _owns_map(value, managed)
    if isinstance(value, list):
        return _owns_list(value, managed)
    return True


def _owns_list(items: Sequence[Any], managed: Json) -> bool:
    if isinstance(items[0], dict):
        return all(_owns_entry(item, managed) for item in items)
    values = {_parsed(key[2:]) for key in managed if key.startswith("v:")}
    return values.issuperset(items)


def _owns_entry(item: Json, managed: Json) -> bool:
    """Return whether some entry's own keys are this item's; keys it leaves out are defaults."""
    entries = ((key, below) for key, below in managed.items() if key.startswith("k:"))
    return any(
        all(item.get(name, value) == value for name, value in _parsed(key[2:]).items())
        and _owns(item, below)
        for key, below in entries
    )


@lru_cache(maxsize=4096)
def _parsed(text: str) -> Any:
    return json.loads(text)
