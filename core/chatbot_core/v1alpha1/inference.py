"""The part of the spec that writes answers: the model, where it runs, the queue before it."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Final, Literal

from pydantic import Field

from chatbot_core.v1alpha1.fields import (
    INT32_MAX,
    Edit,
    Image,
    ModelName,
    Object,
    Quantity,
    SecretKey,
    Subdomain,
    Url,
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


def _parallel_requests(of_what: str) -> Any:
    return stated(Edit.ROLLS_INFERENCE, of_what, default=2, ge=1, le=64)


def _context_tokens() -> Any:
    return stated(Edit.ROLLS_INFERENCE, "Context of one request.", default=4096, ge=512, le=1048576)


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
    rollout: Literal["Surge", "Replace"] | None = stated(
        Edit.LIVE,
        "Surge: a new pod is ready before an old one ends. Replace: an old one ends first. Unset: "
        "Replace for one replica with an extended resource like a GPU, else Surge.",
        default=None,
    )
    scaling: Scaling = Scaling()
    parallel_requests: int = _parallel_requests("Requests that one Ollama serves at a time.")
    context_tokens: int = _context_tokens()
    idle: Literal["Keep", "Unload"] = stated(
        Edit.ROLLS_INFERENCE, "Keep the model loaded, or free its memory when idle.", default="Keep"
    )
    options: GenerationOptions = GenerationOptions()
    model_cache: ModelCache = ModelCache()
    pod: InferencePod | None = below(Edit.ROLLS_INFERENCE)


#: 40 characters of the object, "-inference-" and these 12 are the 63 that a label may have.
EndpointName = Annotated[str, Field(pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", max_length=12)]

_BYTE: Final = "(25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])"
#: DNS names, IPv4 with four decimal numbers, global and unique local IPv6: no address has a second
#: spelling that the rules below would not know.
_HOST: Final = "|".join(
    (
        "([a-z0-9]([-a-z0-9]*[a-z0-9])?[.])*[a-z]([-a-z0-9]*[a-z0-9])?",
        f"{_BYTE}([.]{_BYTE}){{3}}",
        "[[]([23][0-9a-f]{3}|f[cd][0-9a-f]{2}):[0-9a-f:]+[]]",
    )
)
_LINK_LOCAL: Final = "169[.]254[.]|[[]fe[89ab]|metadata[.]google[.]internal([:/]|$)"
_LOOPBACK: Final = "127[.]|0[.]0[.]0[.]0([:/]|$)|[[]::1?[]]|([^/:]*[.])?localhost([:/]|$)"


class EndpointSecretRef(Object):
    """One key of a Secret in the object's namespace; its content may change at any time."""

    name: Subdomain = stated(
        Edit.ROLLS_INFERENCE, "Name of a Secret in the namespace of this object."
    )
    key: SecretKey = stated(Edit.ROLLS_INFERENCE, "Key in that Secret.")


class Endpoint(Object):
    """One Ollama of yours, outside of this object."""

    RULES: ClassVar = (
        (
            "isURL(self.url) && self.url.matches('^https?://[^/?#@]+(/[^?#]*)?$')",
            (
                "must be an http or https URL like https://ollama.example.com:11434, without "
                "user, query or fragment; a token goes into tokenSecretRef"
            ),
            ".url",
        ),
        (
            "self.allowInsecure || !self.url.startsWith('http:')",
            "must be an https URL, or allowInsecure must be true",
            ".url",
        ),
        (
            f"self.url.matches('(?i)^[a-z]+://({_HOST})(:[0-9]+)?(/|$)')",
            "must name its host by a DNS name or an IP address in its usual form",
            ".url",
        ),
        (
            f"!self.url.matches('(?i)^[a-z]+://({_LINK_LOCAL})')",
            "must not be a link-local or metadata address",
            ".url",
        ),
        (
            f"!self.url.matches('(?i)^[a-z]+://({_LOOPBACK})')",
            "must not be a loopback address; the pod that asks there is alone",
            ".url",
        ),
    )
    name: EndpointName = stated(
        Edit.ROLLS_INFERENCE, "Name of the endpoint, part of the name of its proxy."
    )
    url: Url = stated(Edit.ROLLS_INFERENCE, "URL of the server, as clients of Ollama use it.")
    allow_insecure: bool = stated(
        Edit.LIVE, "Permit a plain http URL, for a network you trust.", default=False
    )
    parallel_requests: int = _parallel_requests("Requests that this endpoint is asked at a time.")
    ca_secret_ref: EndpointSecretRef | None = None
    token_secret_ref: EndpointSecretRef | None = None


class ExternalInference(Object):
    """Ollamas that are not ours: no pods of Ollama are made, and no model is pulled there."""

    RULES: ClassVar = (
        (
            "self.endpoints.all(e, self.endpoints.exists_one(f, f.url == e.url))",
            "must not hold a URL twice; each server has one queue",
            ".endpoints",
        ),
    )
    endpoints: tuple[Endpoint, ...] = stated(
        Edit.ROLLS_INFERENCE,
        "The servers; each gets a proxy of its own that queues before it.",
        min_length=1,
        max_length=16,
        extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]},
    )
    protocol: Literal["Ollama"] = stated(
        Edit.IMMUTABLE, "What the endpoints speak; so far nothing else.", default="Ollama"
    )
    context_tokens: int = _context_tokens()
    options: GenerationOptions = GenerationOptions()


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
        (
            "!(has(self.managed) && has(self.external))",
            "must have at most one of managed and external",
            "",
        ),
    )
    model: ModelName = stated(
        Edit.ROLLS_INFERENCE, "Model that writes the answers, as Ollama names it."
    )
    managed: ManagedInference | None = None
    external: ExternalInference | None = None
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
    def ollama(self) -> ManagedInference | None:
        """Return the managed inference: the default one where nothing is said."""
        return None if self.external else self.managed or ManagedInference()

    @property
    def endpoints(self) -> tuple[Endpoint, ...]:
        """Return the external endpoints by name: their order in the spec means nothing."""
        stated_ones = self.external.endpoints if self.external else ()
        return tuple(sorted(stated_ones, key=lambda one: one.name))

    @property
    def context_tokens(self) -> int:
        """Return the context of one request, wherever the model runs."""
        return (self.external or self.managed or ManagedInference()).context_tokens

    @property
    def options(self) -> GenerationOptions:
        """Return how the model writes, wherever it runs."""
        return (self.external or self.managed or ManagedInference()).options
