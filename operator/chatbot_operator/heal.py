"""What a heal must put before it applies. Pure.

Server-side apply adds its items to a keyed list and never removes another manager's: a Service
port changed by hand from 80 to 81 would stand beside ours, under the same name, and be refused.
So the items that are not ours are dropped first. Which lists are keyed, and by what, is read from
the object's own managedFields (`k:` entries), as the structured-merge-diff library writes them.
"""

from __future__ import annotations

import json
from copy import deepcopy
from typing import Final

from chatbot_core import names
from chatbot_operator.model import Json

#: A volume has one source, a Deployment one strategy: without ours the API server puts in another
#: one, beside which it would refuse ours.
_UNIONS: Final = frozenset({"volumes", "strategy"})


def without_foreign_items(desired: Json, live: Json) -> Json | None:
    """Return the live object with only our items in the keyed lists that `desired` sets.

    Items of ours that are missing are put in where something was dropped: a list that became
    empty could be invalid. None = nothing to drop.
    """
    trees = [
        entry.get("fieldsV1") or {}
        for entry in live["metadata"].get("managedFields") or ()
        if not entry.get("subresource")
    ]
    healed: Json = deepcopy(live)
    return healed if _prune_map(desired, healed, trees) else None


def without_update_entry(live: Json) -> Json | None:
    """Return the object without the managedFields entry that our PUT left; None = there is none.

    It would own what we put beside the Apply entry, and a later apply could remove nothing of it.
    """
    entries = live["metadata"].get("managedFields") or []
    kept = [
        entry
        for entry in entries
        if not (
            entry.get("manager") == names.MANAGER
            and entry.get("operation") == "Update"
            and not entry.get("subresource")
        )
    ]
    if len(kept) == len(entries):
        return None
    return {**live, "metadata": {**live["metadata"], "managedFields": kept}}


def _prune_map(desired: Json, live: Json, trees: list[Json]) -> bool:
    dropped = False
    for key, wanted in desired.items():
        below = [tree[f"f:{key}"] for tree in trees if isinstance(tree.get(f"f:{key}"), dict)]
        there = live.get(key)
        if isinstance(wanted, dict) and isinstance(there, dict):
            dropped |= _prune_map(wanted, there, below)
            dropped |= key in _UNIONS and _stands_alone(wanted, there)
        elif isinstance(wanted, list) and isinstance(there, list):
            dropped |= _prune_list(wanted, there, below, union=key in _UNIONS)
    return dropped


def _stands_alone(desired: Json, live: Json) -> bool:
    """Drop what stands beside ours where only one may be; say whether there was anything."""
    surplus = live.keys() - desired.keys()
    if surplus:
        for key in surplus:
            del live[key]
        live.update(deepcopy(desired))
    return bool(surplus)


def _prune_list(desired: list[Json], live: list[Json], trees: list[Json], *, union: bool) -> bool:
    keys = {name: json.loads(name[2:]) for tree in trees for name in tree if name.startswith("k:")}
    fields = {field for key in keys.values() for field in key}
    if not fields:
        return False
    dropped, kept, missing = False, [], list(desired)
    for item in live:
        wanted = next((want for want in missing if _same_item(want, item, fields)), None)
        if wanted is None:
            dropped = True
            continue
        missing.remove(wanted)
        kept.append(item)
        names_of_item = [name for name, key in keys.items() if _has_key(item, key)]
        below = [tree[name] for tree in trees for name in names_of_item if name in tree]
        dropped |= _prune_map(wanted, item, below)
        dropped |= union and _stands_alone(wanted, item)
    if dropped:
        live[:] = kept + deepcopy(missing)
    return dropped


def _same_item(wanted: Json, item: Json, fields: set[str]) -> bool:
    # A key field that we leave to its default (protocol: TCP) matches whatever stands there.
    return all(wanted.get(field, item.get(field)) == item.get(field) for field in fields)


def _has_key(item: Json, key: Json) -> bool:
    return all(item.get(field) == value for field, value in key.items())
