"""The part of the spec that writes answers: the model, where it runs, the queue before it."""

from __future__ import annotations

from typing import ClassVar, Literal

from chatbot_core.v1alpha1.fields import (
    INT32_MAX,
    Edit,
    Image,
    ModelName,
    Object,
    Quantity,
    Subdomain,
    below,
    size_rule,
    stated,
)
from chatbot_core.v1alpha1.pods import InferencePod
from chatbot_core.v1alpha1.scaling import Scaling


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
    pod: InferencePod | None = below(Edit.ROLLS_INFERENCE)


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
