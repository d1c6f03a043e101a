"""The spec of a ChatbotCluster: what a person states, with bounds, rules and what an edit does."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from chatbot_core import names
from chatbot_core.v1alpha1.fields import (
    Edit,
    Label,
    Object,
    Quantity,
    Subdomain,
    below,
    immutable,
    size_rule,
    stated,
)
from chatbot_core.v1alpha1.inference import Inference
from chatbot_core.v1alpha1.outward import Proxy, PullSecret
from chatbot_core.v1alpha1.pods import ClusterPod, TierPod
from chatbot_core.v1alpha1.release import RuntimeImage, Version
from chatbot_core.v1alpha1.scaling import ApiScaling, Scaling
from chatbot_core.v1alpha1.storage import Claim, Database, Documents, ScratchStorage

_ROOT_NAME = "^[a-z]([-a-z0-9]*[a-z0-9])?$"


class Api(Object):
    """The tier that people and programs talk to."""

    scaling: ApiScaling = ApiScaling()
    pod: TierPod | None = below(Edit.ROLLS_API)


class Ingest(Object):
    """The tier that reads documents, cuts and embeds them."""

    RULES: ClassVar = (
        (
            "self.chunkOverlapCharacters < self.chunkSizeCharacters",
            "must be smaller than chunkSizeCharacters",
            ".chunkOverlapCharacters",
        ),
    )
    scaling: Scaling = Scaling()
    chunk_size_characters: int = stated(
        Edit.NEW_DATA_ONLY, "Longest chunk of a document.", default=500, ge=100, le=4000
    )
    chunk_overlap_characters: int = stated(
        Edit.NEW_DATA_ONLY,
        "Characters that neighbouring chunks share at most.",
        default=50,
        ge=0,
        le=2000,
    )
    max_parallel_chunks: int = stated(
        Edit.LIVE, "Chunks that a worker embeds at once.", default=10, ge=1, le=256
    )
    max_document_size: Quantity = stated(
        Edit.LIVE, "Largest document accepted.", default="50Mi", extra=size_rule("1Ki", "1Gi")
    )
    pod: TierPod | None = below(Edit.ROLLS_INGEST)


class Retrieval(Object):
    """The vector tier: FAISS shards over the event log."""

    RULES: ClassVar = (
        ("self.minPassages <= self.maxPassages", "must not exceed maxPassages", ".minPassages"),
    )
    shards: int = stated(
        Edit.IMMUTABLE,
        "Number of shards that the 1,024 slots are spread over.",
        default=2,
        ge=1,
        le=100,
        extra=immutable("moving slots between shards is not supported by this version"),
    )
    replicas_per_shard: int = stated(
        Edit.LIVE, "Read replicas of each shard.", default=1, ge=1, le=10
    )
    min_coverage_percent: int = stated(
        Edit.LIVE,
        "Share of the slots that must answer; below it a question gets 503.",
        default=100,
        ge=1,
        le=100,
    )
    min_passages: int = stated(
        Edit.LIVE, "Fewest passages put before the model.", default=3, ge=1, le=50
    )
    max_passages: int = stated(
        Edit.LIVE, "Most passages put before the model.", default=10, ge=1, le=50
    )
    storage: ScratchStorage = ScratchStorage()
    pod: TierPod | None = below(Edit.ROLLS_SHARDS)


class Answer(Object):
    """What an answer is made of."""

    mode: Literal["Generate", "Extract"] = stated(
        Edit.LIVE,
        "Generate: the model writes. Extract: the best sentences are quoted.",
        default="Generate",
    )


class AdminSecretRef(Object):
    """A Secret with the keys username and password."""

    name: Subdomain = stated(Edit.ROLLS_API, "Name of a Secret in this namespace.")


class Access(Object):
    """Who may come in."""

    admin_secret_ref: AdminSecretRef | None = None


class ChatbotClusterSpec(Object):
    """Everything that a person states about a document-chat service."""

    version: Version | None = stated(
        Edit.ROLLS_RUNTIME,
        "Release of the runtime, like 0.3; unset keeps the one that runs.",
        default=None,
    )
    image: RuntimeImage | None = None
    deletion_policy: Literal["Retain", "Delete"] = stated(
        Edit.LIVE,
        "Retain keeps claims and the Secrets that open them when the object goes; Delete does not.",
        default="Retain",
    )
    suspend: bool = stated(
        Edit.LIVE,
        "True stops every write but the status; pods keep running, and deletion still works.",
        default=False,
    )
    operator_class: Label | None = stated(
        Edit.LIVE,
        "Operator that takes care of this object, by its --operator-class; unset: the one without.",
        default=None,
    )
    image_pull_secrets: tuple[PullSecret, ...] = Field(
        default_factory=tuple,
        max_length=8,
        json_schema_extra={
            "x-kubernetes-list-type": "map",
            "x-kubernetes-list-map-keys": ["name"],
        },
    )
    proxy: Proxy | None = None
    pod: ClusterPod | None = below(Edit.ROLLS_EVERY_TIER)
    api: Api = Api()
    ingest: Ingest = Ingest()
    retrieval: Retrieval = Retrieval()
    inference: Inference
    documents: Documents = Documents()
    database: Database = Database()
    answer: Answer = Answer()
    access: Access = Access()
    self_test: Literal["OnChange", "Disabled"] = stated(
        Edit.LIVE,
        "OnChange: Ready waits for one answered question after every change.",
        default="OnChange",
    )


#: CEL rules of the whole object.
ROOT_RULES: tuple[tuple[str, str, str], ...] = (
    (
        f"self.metadata.name.size() <= {names.NAME_MAX_LENGTH}",
        f"metadata.name must have at most {names.NAME_MAX_LENGTH} characters; children add to it",
        "",
    ),
    (
        f"self.metadata.name.matches('{_ROOT_NAME}')",
        "metadata.name must be lower-case letters, digits and '-', and begin with a letter",
        "",
    ),
)

__all__ = ["ROOT_RULES", "ChatbotClusterSpec", "Claim"]
