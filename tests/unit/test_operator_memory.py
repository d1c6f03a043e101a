"""What the operator keeps of a child: a few kilobytes, whatever the object weighs."""

from __future__ import annotations

import json
import tracemalloc

from fakes.managed_fields import managed_fields
from fakes.operator_world import World

from chatbot_core import names
from chatbot_operator import entries
from chatbot_operator.feeders import scope
from chatbot_operator.kinds import Object, Ref
from chatbot_operator.model import Child, Json
from chatbot_operator.store import Entry, Store

CLUSTERS = 5
MOST_BYTES_A_CHILD = 4000


def _live(desired: Json) -> Object:
    entry = {"manager": names.MANAGER, "operation": "Apply", "fieldsV1": managed_fields(desired)}
    system = {"uid": f"uid-{desired['metadata']['name']}", "resourceVersion": "7", "generation": 1}
    return {**desired, "metadata": {**desired["metadata"], **system, "managedFields": [entry]}}


def _listed(texts: list[str], cluster: str) -> dict[Ref, Entry[Child]]:
    """Return entries as a list makes them: from text that nothing else keeps."""
    listed: dict[Ref, Entry[Child]] = {}
    for text in texts:
        obj = json.loads(text.replace("docs", cluster))
        owner = entries.owner_of(obj)
        assert owner is not None
        ref = Ref(obj["kind"], *owner[:1], obj["metadata"]["name"])
        listed[ref] = Entry(entries.child(obj), owner, 7)
    return listed


def test_a_child_is_kept_in_a_few_kilobytes() -> None:
    world = World().ready()
    texts = [json.dumps(_live(obj)) for key, obj in world.objects.items() if key[0] != "Secret"]
    tracemalloc.start()
    try:
        store: Store[Ref, Child] = Store(lambda _: None)
        for number in range(CLUSTERS):
            of_one = _listed(texts, f"docs{number}")
            store.replace(scope("every kind", str(number)), of_one, 7)
        kept_bytes, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(store.owners()) == CLUSTERS
    assert kept_bytes / (CLUSTERS * len(texts)) < MOST_BYTES_A_CHILD
