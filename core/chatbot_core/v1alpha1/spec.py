"""The spec of a ChatbotCluster: what a person states, with bounds, rules and what an edit does."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from chatbot_core import names
from chatbot_core.v1alpha1.fields import (
    INT32_MAX,
    Edit,
    Image,
    ModelName,
    Object,
    Quantity,
    Subdomain,
    immutable,
    size_rule,
    stated,
)
from chatbot_core.v1alpha1.storage import Claim, Database, Documents, ScratchStorage

_ROOT_NAME = "^[a-z]([-a-z0-9]*[a-z0-9])?$"


def _replicas(default: int) -> Any:
    return stated(
        Edit.LIVE, "Number of replicas that the tier runs.", default=default, ge=1, le=100
    )


class Scaling(Object):
    """How many replicas a tier runs."""

    min_replicas: int = _replicas(1)


class ApiScaling(Object):
    """How many API replicas run."""

    min_replicas: int = _replicas(2)


class Api(Object):
    """The tier that people and programs talk to."""

    scaling: ApiScaling = ApiScaling()


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


class GenerationOptions(Object):
    """How the model writes."""

    temperature_percent: int = stated(
        Edit.LIVE, "Sampling temperature in hundredths.", default=0, ge=0, le=200
    )
    max_output_tokens: int = stated(
        Edit.LIVE, "Longest answer in tokens.", default=512, ge=1, le=32768
    )
    seed: int = stated(Edit.LIVE, "Seed of the sampling.", default=0, ge=0, le=INT32_MAX)


class ModelCache(Object):
    """Where an inference pod keeps a pulled model; lost with the pod and pulled again."""

    size: Quantity = stated(
        Edit.ROLLS_INFERENCE,
        "Size limit of the cache volume.",
        default="20Gi",
        extra=size_rule("100Mi", "10Ti"),
    )
    storage_class_name: Subdomain | None = stated(
        Edit.ROLLS_INFERENCE,
        "Storage class of a generic ephemeral claim; unset takes an emptyDir.",
        default=None,
    )


class ManagedInference(Object):
    """Ollama pods of ours."""

    RULES: ClassVar = (
        (
            "self.source != 'Image' || has(self.image)",
            "must be set where source is Image",
            ".image",
        ),
    )
    source: Literal["Pull", "Image"] = stated(
        Edit.ROLLS_INFERENCE,
        "Pull: Ollama downloads the model. Image: the image holds it below /models.",
        default="Pull",
    )
    image: Image | None = stated(
        Edit.ROLLS_INFERENCE,
        "Ollama's image; unset takes the operator's choice (source Pull only).",
        default=None,
    )
    scaling: Scaling = Scaling()
    parallel_requests: int = stated(
        Edit.ROLLS_INFERENCE, "Requests that one Ollama serves at a time.", default=2, ge=1, le=64
    )
    context_tokens: int = stated(
        Edit.ROLLS_INFERENCE, "Context of one request.", default=4096, ge=512, le=1048576
    )
    idle: Literal["Keep", "Unload"] = stated(
        Edit.ROLLS_INFERENCE, "Keep the model loaded, or free its memory when idle.", default="Keep"
    )
    options: GenerationOptions = GenerationOptions()
    model_cache: ModelCache = ModelCache()


class Queue(Object):
    """The bounded queue before every Ollama."""

    max_waiting: int = stated(
        Edit.LIVE, "Requests that wait at most; more get 503.", default=32, ge=0, le=10000
    )
    max_wait_seconds: int = stated(Edit.LIVE, "Longest wait before 503.", default=30, ge=1, le=600)


class Inference(Object):
    """The tier that writes answers."""

    RULES: ClassVar = (
        (
            "self.drainSeconds > self.maxAnswerSeconds",
            "must be longer than maxAnswerSeconds, or rollouts cut answers",
            ".drainSeconds",
        ),
    )
    model: ModelName = stated(
        Edit.ROLLS_INFERENCE, "Model that writes the answers, as Ollama names it."
    )
    managed: ManagedInference | None = None
    queue: Queue = Queue()
    max_answer_seconds: int = stated(
        Edit.LIVE, "Longest time one answer may take.", default=120, ge=5, le=3600
    )
    drain_seconds: int = stated(
        Edit.ROLLS_INFERENCE_AND_API,
        "Time that an ending pod has to finish its answers.",
        default=150,
        ge=10,
        le=7200,
    )

    @property
    def ollama(self) -> ManagedInference:
        """Return the managed inference: the default one where nothing is said."""
        return self.managed or ManagedInference()


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

    deletion_policy: Literal["Retain", "Delete"] = stated(
        Edit.LIVE,
        "Retain keeps claims and the Secrets that open them when the object goes; Delete does not.",
        default="Retain",
    )
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
