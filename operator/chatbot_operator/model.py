"""Values of one pass: what is known (`Observed`), what to do (`Plan`), and nothing that acts.

Every time is in seconds since the epoch on one clock; `now_s` is always an argument. Unknown,
absent and old are three different values of a `Fact`; a predicate holds on the first and last.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeAlias, TypeVar

from chatbot_core import names
from chatbot_core.reasons import Reason
from chatbot_core.runtime_config import RuntimeStatus

T = TypeVar("T")

#: A whole Kubernetes object, or a part of one, as JSON.
Json: TypeAlias = dict[str, Any]
#: Kind and name of a child; the namespace is always the owner's.
ChildKey: TypeAlias = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Fact(Generic[T]):
    """One thing that was looked at: `known` with None is absent, not `known` is unknown."""

    value: T | None
    at_s: float
    known: bool

    @classmethod
    def unknown(cls) -> Fact[T]:
        """Return the fact that nobody has looked yet."""
        return cls(value=None, at_s=0.0, known=False)

    def fresh(self, now_s: float, max_age_s: float) -> bool:
        """Return whether somebody looked within the last `max_age_s` seconds."""
        return self.known and now_s - self.at_s <= max_age_s


@dataclass(frozen=True, slots=True)
class Child:
    """What is kept of a watched object; fields that a kind does not have stay at their default.

    `managed` is `fieldsV1` of our own entry (manager `names.MANAGER`, operation Apply, no
    subresource) as JSON, a tenth of what the tree would take; None where there is no such entry.
    `scaler_owns_replicas` says the same of `f:spec.f:replicas` and `names.SCALER_MANAGER`.
    """

    kind: str
    name: str
    uid: str
    resource_version: str = ""
    applied: str = ""  # annotation names.ANNOTATION_APPLIED
    template: str = ""  # annotation names.ANNOTATION_TEMPLATE
    owner_uid: str = ""  # of the controller owner reference, whoever that is
    adopter: str = ""  # kind and name of a controller that is no ChatbotCluster
    cluster_uid: str = ""  # annotation names.ANNOTATION_CLUSTER_UID (claims, generated Secrets)
    retained_from: str = ""  # label names.LABEL_RETAINED_FROM
    labels: Mapping[str, str] = field(default_factory=dict)  # only app.kubernetes.io/ and ours
    generation: int = 0  # 0 where the kind has none
    observed_generation: int = 0
    deleting: bool = False
    managed: str | None = None
    scaler_owns_replicas: bool = False
    # Deployment and StatefulSet: `replicas` is spec.replicas, the others are of the status.
    replicas: int | None = None
    current: int = 0  # status.replicas
    ready: int = 0
    updated: int = 0
    available: int = 0
    unavailable: int = 0
    # Deployment: why no more pods can be made (condition ReplicaFailure).
    pods_refused: str = ""
    # Job: `failed` counts pods; `job_failed` is the condition Failed (no more tries).
    succeeded: int = 0
    failed: int = 0
    job_failed: bool = False
    # PersistentVolumeClaim: status.phase, spec.resources.requests.storage, status.capacity.storage.
    phase: str = ""
    requested: str = ""
    capacity: str = ""
    # Why the capacity is not what was asked for, and whether that is the last word of its driver.
    resize: str = ""
    resize_failed: bool = False
    # Service.
    cluster_ip: str = ""
    # ConfigMap: the value of names.CHOICE_KEY; ServiceAccount: of names.ANNOTATION_CHOICE.
    choice: str = ""
    # ConfigMap: the names of the document stores that its RuntimeConfig lists.
    stores: tuple[str, ...] = ()

    @property
    def component(self) -> str:
        """Return the tier that its label names."""
        return self.labels.get(names.LABEL_COMPONENT, "")

    @property
    def version(self) -> str:
        """Return the release of the runtime that its label names."""
        return self.labels.get(names.LABEL_VERSION, "")

    @property
    def key(self) -> ChildKey:
        """Return kind and name."""
        return self.kind, self.name


@dataclass(frozen=True, slots=True)
class Secret:
    """A Secret that was read by name: its metadata, and which keys hold a non-empty value."""

    child: Child
    keys: frozenset[str]


@dataclass(frozen=True, slots=True)
class Pod:
    """What is kept of a pod: the first container in trouble speaks for it."""

    name: str
    component: str  # value of label names.LABEL_COMPONENT: api, shard-0, inference, ...
    ready: bool = False
    waiting_reason: str = ""  # ImagePullBackOff, CrashLoopBackOff, CreateContainerConfigError, ...
    message: str = ""  # of the waiting state, else of the last termination
    restarts: int = 0  # of the container in trouble
    unschedulable: str = ""  # message of PodScheduled=False with reason Unschedulable
    unschedulable_since_s: float = 0.0  # since when that condition has been False
    boot: str = ""  # annotation names.ANNOTATION_BOOT
    deleting: bool = False


@dataclass(frozen=True, slots=True)
class Autoscaler:
    """Somebody else's object that scales a workload of this namespace."""

    kind: str
    name: str
    target_kind: str
    target: str


@dataclass(frozen=True, slots=True)
class Owner:
    """The ChatbotCluster itself; `spec` and `status` are raw, as the API server holds them."""

    namespace: str
    name: str
    uid: str
    generation: int
    spec: Json
    status: Json = field(default_factory=dict)
    deleting: bool = False
    deleting_since_s: float = 0.0
    finalizers: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class OperatorSettings:
    """What the operator was started with; images are whole references.

    Version and images are only the choice for an object that is seen for the first time:
    afterwards the choice is read back from the object's ConfigMap, or from the copy on its
    ServiceAccount, so that another operator rolls nothing.
    """

    runtime_image: str
    runtime_version: str
    database_image: str
    store_image: str
    ollama_image: str
    image_pull_policy: str = "IfNotPresent"


@dataclass(frozen=True, slots=True)
class Observed:
    """Everything one pass may look at.

    `children_complete`: every kind was listed at least once. `settled`: the watch has shown
    every write of ours to this object's children. `secrets` holds every name of the last plan's
    `wanted_secrets` (a missing name is unknown). `refused` is what `execute` could not do in the
    passes since that step last succeeded, by child (first contact with a foreign object, or a
    write that the API server refused). `status_written_at_s`: None after a start.
    """

    owner: Owner
    settings: OperatorSettings
    children: Mapping[ChildKey, Child] = field(default_factory=dict)
    children_complete: bool = True
    settled: bool = True
    pods: tuple[Pod, ...] = ()
    autoscalers: tuple[Autoscaler, ...] = ()
    secrets: Mapping[str, Fact[Secret]] = field(default_factory=dict)
    runtime: Fact[RuntimeStatus] = field(default_factory=Fact[RuntimeStatus].unknown)
    refused: Mapping[ChildKey, Refusal] = field(default_factory=dict)
    status_written_at_s: float | None = None


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a step was not taken: the predicate's name, the reason for people, and the facts."""

    name: str
    reason: Reason
    message: str


@dataclass(frozen=True, slots=True)
class Apply:
    """Server-side apply of a whole object by `names.MANAGER`; it never holds `replicas`.

    `uid` is that of the child as known: it is sent as `metadata.uid`, so that the write can
    only update. None = first contact: read live; absent -> create; present with the owner's UID,
    or with `retained-from` of this namespace and name and no controller -> apply with its UID;
    otherwise refuse. `heal` = somebody else changed what we own: read live, remove items that
    are not ours from keyed lists that the object sets, then apply; at first contact it creates
    nothing.
    """

    rank: int
    object: Json
    reason: str
    uid: str | None = None
    heal: bool = False


@dataclass(frozen=True, slots=True)
class Scale:
    """Apply of `spec.replicas` by `names.SCALER_MANAGER`, with force.

    It follows the object's own `Apply` in `steps`; where that failed or was refused, it is left
    out. `uid` None = take the one of the object just applied.
    """

    rank: int
    kind: str
    name: str
    replicas: int
    reason: str
    uid: str | None = None


@dataclass(frozen=True, slots=True)
class Delete:
    """Delete with a UID precondition, in the background."""

    rank: int
    kind: str
    name: str
    uid: str
    reason: str


@dataclass(frozen=True, slots=True)
class Recipe:
    """How a generated Secret is filled: random keys first, then templates over all of them.

    `random` maps a key to its number of characters (drawn from [A-Za-z0-9], so that it fits into
    a URL as it is); `fixed` maps a key to its text; `templates` maps a key to a `str.format`
    text over the random and fixed keys, like `postgresql://chatbot:{password}@host/chatbot`.
    """

    random: tuple[tuple[str, int], ...]
    fixed: tuple[tuple[str, str], ...] = ()
    templates: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class CreateSecret:
    """Create (POST, never apply) a Secret whose content is drawn now, if it is absent.

    `object` holds metadata and type. Present = leave it alone and read it: data is never
    rewritten. The `Apply` of the same Secret that may follow holds metadata only, so that our
    Apply entry never owns data.
    """

    rank: int
    object: Json
    recipe: Recipe
    reason: str

    @property
    def name(self) -> str:
        """Return the Secret's name."""
        name: str = self.object["metadata"]["name"]
        return name


@dataclass(frozen=True, slots=True)
class SetFinalizer:
    """Put our finalizer on the ChatbotCluster `name`, or take it off.

    It is the only thing of ours in the object's metadata; others' finalizers stay. A `note` is
    told as an Event before, because afterwards the object may be gone.
    """

    rank: int
    name: str
    present: bool
    reason: str
    note: str = ""


Step: TypeAlias = Apply | Scale | Delete | CreateSecret | SetFinalizer


def step_key(step: Step) -> ChildKey:
    """Return kind and name of what a step writes."""
    match step:
        case Apply():
            return str(step.object["kind"]), str(step.object["metadata"]["name"])
        case CreateSecret():
            return "Secret", step.name
        case Scale() | Delete():
            return step.kind, step.name
        case SetFinalizer():
            return names.KIND, step.name


@dataclass(frozen=True, slots=True)
class WantedSecret:
    """A Secret to read by name: often while `awaited`, seldom otherwise."""

    name: str
    keys: frozenset[str]
    awaited: bool


@dataclass(frozen=True, slots=True)
class Plan:
    """What one pass decided.

    `steps` are in order of execution; an error ends the pass after its rank. `status` is the
    whole status to write, None = write nothing. `requeue_after_s` None = only an event wakes it.
    """

    steps: tuple[Step, ...] = ()
    refusals: tuple[Refusal, ...] = ()
    status: Json | None = None
    requeue_after_s: float | None = None
    wanted_secrets: tuple[WantedSecret, ...] = ()
