"""The status of a ChatbotCluster: what the operator observed, never what somebody wants."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from chatbot_core.v1alpha1.fields import Object


class Condition(Object):
    """One condition, as `metav1.Condition`."""

    type: str = Field(max_length=64)
    status: Literal["True", "False", "Unknown"]
    reason: str = Field(max_length=64)
    message: str = Field(default="", max_length=1024)
    observed_generation: int = 0
    last_transition_time: str = Field(max_length=32, json_schema_extra={"format": "date-time"})


class Tier(Object):
    """One tier's replicas."""

    name: str = Field(max_length=32)
    ready_replicas: int = 0
    desired_replicas: int = 0


class Shard(Object):
    """One shard's replicas."""

    name: str = Field(max_length=63)
    ready_replicas: int = 0


class RetrievalStatus(Object):
    """The vector tier; counts are rounded to two significant digits."""

    generation: int = 0
    slot_map_epoch: int = 0
    documents: int = 0
    chunks: int = 0
    shards: tuple[Shard, ...] = Field(default=(), max_length=100)


class ModelStatus(Object):
    """The model as Ollama holds it."""

    name: str = Field(default="", max_length=128)
    digest: str = Field(default="", max_length=80)
    downloaded_bytes: int = 0
    total_bytes: int = 0


class ChatbotClusterStatus(Object):
    """The whole status. A fresh object has observedGeneration -1: nobody has looked yet."""

    observed_generation: int = -1
    conditions: tuple[Condition, ...] = Field(
        default=(),
        max_length=16,
        json_schema_extra={
            "x-kubernetes-list-type": "map",
            "x-kubernetes-list-map-keys": ["type"],
        },
    )
    endpoint: str = Field(default="", max_length=256)
    version: str = Field(default="", max_length=64)
    tiers: tuple[Tier, ...] = Field(
        default=(),
        max_length=16,
        json_schema_extra={
            "x-kubernetes-list-type": "map",
            "x-kubernetes-list-map-keys": ["name"],
        },
    )
    retrieval: RetrievalStatus | None = None
    model: ModelStatus | None = None
