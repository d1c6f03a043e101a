"""How many pods of a tier an eviction may take at a time: one, where a tier has others."""

from __future__ import annotations

from collections.abc import Iterable

from chatbot_core import names
from chatbot_operator.desired import context
from chatbot_operator.desired.context import Context, Desired
from chatbot_operator.model import Json


def desired(ctx: Context, tiers: Iterable[Desired]) -> tuple[Desired, ...]:
    """Return a PodDisruptionBudget for every workload of more than one pod.

    A budget over a single pod would let no node be drained; without one the pod is evicted, and
    its successor starts on another node.
    """
    return tuple(
        Desired(one.rank, _budget(ctx, one.object)) for one in tiers if (one.replicas or 0) > 1
    )


def _budget(ctx: Context, workload: Json) -> Json:
    metadata = workload["metadata"]
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": context.owned(ctx, metadata["name"], metadata["labels"][names.LABEL_COMPONENT]),
        "spec": {
            "maxUnavailable": 1,
            "selector": workload["spec"]["selector"],
            # A pod that does not serve protects nobody: a node in trouble can still be drained.
            "unhealthyPodEvictionPolicy": "AlwaysAllow",
        },
    }
