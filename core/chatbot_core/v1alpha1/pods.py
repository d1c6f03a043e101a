"""What a person states about pods: where they run, what they carry, what they may use.

`spec.pod` holds for every tier, a tier's own `pod` goes before it. Nothing here can widen a pod's
rights: there is no field for a security context, a volume, a command, a port or a host's network.
Bounds of names: https://kubernetes.io/docs/concepts/overview/working-with-objects/names/ and
https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Final, Literal

from pydantic import BeforeValidator, Field, WithJsonSchema

from chatbot_core import names, quantity
from chatbot_core.v1alpha1.fields import (
    INT32_MAX,
    Edit,
    Object,
    Subdomain,
    inherited,
    rules,
    stated,
)

_PREFIX: Final = r"([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?"
_NAME: Final = r"[a-zA-Z0-9]([-a-zA-Z0-9_.]*[a-zA-Z0-9])?"
LabelKey = Annotated[str, Field(pattern=f"^{_PREFIX}{_NAME}$", min_length=1, max_length=317)]
LabelValue = Annotated[str, Field(pattern=f"^({_NAME})?$", max_length=63)]
AnnotationValue = Annotated[str, Field(max_length=1024)]
#: An integer or a text, as in the pods of Kubernetes: `1` and `"1"` say the same.
Amount = Annotated[
    str,
    BeforeValidator(lambda value: str(value) if type(value) is int else value),
    Field(pattern=quantity.PATTERN, max_length=20),
    WithJsonSchema(
        {
            "x-kubernetes-int-or-string": True,
            "anyOf": [{"type": "integer"}, {"type": "string"}],
            "pattern": quantity.PATTERN,
            "maxLength": 20,
        }
    ),
]

_KEYS: Final = (
    f"self.all(k, k.size() <= 317 && k.matches('^{_PREFIX}{_NAME}$'))",
    "must have keys like example.com/name",
)
_RESERVED_PREFIXES: Final = ("app.kubernetes.io/", f"{names.GROUP}/")
_OURS: Final = (
    "self.all(k, "
    + " && ".join(f"!k.startsWith('{prefix}')" for prefix in _RESERVED_PREFIXES)
    + ")",
    f"must not begin with {' or '.join(_RESERVED_PREFIXES)}: the operator sets those",
)
#: What the controllers of Kubernetes write on pods to know them again.
_OF_KUBERNETES: Final = (
    (
        "self.all(k, !k.matches('^([^/]*[.])?(kubernetes|k8s)[.]io/') && !(k in "
        "['pod-template-hash', 'controller-revision-hash', 'controller-uid', 'job-name']))"
    ),
    "must not be a label that Kubernetes itself sets on pods",
)
_UNCONFINED: Final = (
    (
        "self.all(k, !k.startsWith('container.apparmor.security.beta.kubernetes.io/') && "
        "!k.startsWith('seccomp.security.alpha.kubernetes.io/'))"
    ),
    "must not change the confinement of containers",
)
_FREE_ENVIRONMENT: Final = (
    f"self.all(e, !(e.name in [{', '.join(repr(name) for name in names.ENV_RESERVED)}]))",
    "must not name a variable that the operator sets",
)
_STANDARD: Final = "['cpu', 'memory', 'ephemeral-storage']"


class Expression(Object):
    """One requirement on labels."""

    key: LabelKey = inherited("Key of the label.")
    operator: Literal["In", "NotIn", "Exists", "DoesNotExist"] = inherited("How it is compared.")
    values: tuple[LabelValue, ...] = inherited(
        "Values for In and NotIn.", default_factory=tuple, max_length=16
    )


class NodeExpression(Object):
    """One requirement on the labels of a node."""

    key: LabelKey = inherited("Key of the label.")
    operator: Literal["In", "NotIn", "Exists", "DoesNotExist", "Gt", "Lt"] = inherited(
        "How it is compared."
    )
    values: tuple[LabelValue, ...] = inherited(
        "Values; one number for Gt and Lt.", default_factory=tuple, max_length=16
    )


class NodeTerm(Object):
    """Requirements that hold together."""

    match_expressions: tuple[NodeExpression, ...] = Field(min_length=1, max_length=8)


class NodeTerms(Object):
    """Alternatives, of which one must hold."""

    node_selector_terms: tuple[NodeTerm, ...] = Field(min_length=1, max_length=4)


class PreferredNodes(Object):
    """Nodes that are better than others."""

    weight: int = inherited("Weight of this preference.", ge=1, le=100)
    preference: NodeTerm


class NodeAffinity(Object):
    """Which nodes a pod needs or prefers."""

    required_during_scheduling_ignored_during_execution: NodeTerms | None = None
    preferred_during_scheduling_ignored_during_execution: tuple[PreferredNodes, ...] = Field(
        default_factory=tuple, max_length=8
    )


class LabelSelector(Object):
    """Pods by their labels."""

    match_labels: dict[str, LabelValue] = inherited(
        "Labels with exactly these values.", default_factory=dict, max_length=8, extra=rules(_KEYS)
    )
    match_expressions: tuple[Expression, ...] = Field(default_factory=tuple, max_length=8)


class PodTerm(Object):
    """Pods of this namespace, and how far a neighbour reaches."""

    topology_key: LabelKey = inherited("Label of nodes that are one place.")
    label_selector: LabelSelector | None = None
    match_label_keys: tuple[LabelKey, ...] = inherited(
        "Labels whose value must be the pod's own, like app.kubernetes.io/component.",
        default_factory=tuple,
        max_length=4,
    )


class PreferredPods(Object):
    """Neighbours that are better than others."""

    weight: int = inherited("Weight of this preference.", ge=1, le=100)
    pod_affinity_term: PodTerm


class PodAffinity(Object):
    """Which neighbours a pod needs, prefers or avoids."""

    required_during_scheduling_ignored_during_execution: tuple[PodTerm, ...] = Field(
        default_factory=tuple, max_length=4
    )
    preferred_during_scheduling_ignored_during_execution: tuple[PreferredPods, ...] = Field(
        default_factory=tuple, max_length=4
    )


class Affinity(Object):
    """Where pods go, by nodes and by neighbours, in the fields of a Kubernetes pod."""

    node_affinity: NodeAffinity | None = None
    pod_affinity: PodAffinity | None = None
    pod_anti_affinity: PodAffinity | None = None


class Toleration(Object):
    """A taint that a pod bears."""

    RULES: ClassVar = (
        (
            "self.?operator.orValue('Equal') == 'Equal' ? has(self.key) : !has(self.value)",
            "must have a key for Equal, and no value for Exists",
            "",
        ),
        (
            "!has(self.tolerationSeconds) || self.?effect.orValue('') == 'NoExecute'",
            "must be for the effect NoExecute alone",
            ".tolerationSeconds",
        ),
    )
    key: LabelKey | None = inherited("Key of the taint; unset with Exists: every.", default=None)
    operator: Literal["Equal", "Exists"] | None = inherited(
        "How the value is compared; unset: Equal.", default=None
    )
    value: LabelValue | None = inherited("Value of the taint.", default=None)
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = inherited(
        "Effect of the taint; unset: every.", default=None
    )
    toleration_seconds: int | None = inherited(
        "How long NoExecute is borne; unset: for ever.", default=None, ge=0, le=INT32_MAX
    )


class Spread(Object):
    """How evenly the pods of one Deployment or StatefulSet stand; its selector is filled in."""

    max_skew: int = inherited("Largest difference between two places.", ge=1, le=100)
    topology_key: LabelKey = inherited("Label of nodes that are one place.")
    when_unsatisfiable: Literal["DoNotSchedule", "ScheduleAnyway"] = inherited(
        "Wait, or take the next best place."
    )


class Variable(Object):
    """A plain environment variable; Secrets are files and never stand here."""

    name: str = inherited(
        "Name of the variable.", pattern="^[A-Za-z_][A-Za-z0-9_]*$", min_length=1, max_length=128
    )
    value: str = inherited("Its value, no secret.", max_length=1024)


class PodSettings(Object):
    """What holds for the pods of a tier."""

    node_selector: dict[str, LabelValue] = inherited(
        "Labels of the nodes. A tier's keys go over those of spec.pod.",
        default_factory=dict,
        max_length=16,
        extra=rules(_KEYS),
    )
    tolerations: tuple[Toleration, ...] = Field(default_factory=tuple, max_length=16)
    topology_spread_constraints: tuple[Spread, ...] = Field(
        default_factory=tuple,
        max_length=4,
        json_schema_extra={
            "x-kubernetes-list-type": "map",
            "x-kubernetes-list-map-keys": ["topologyKey", "whenUnsatisfiable"],
        },
    )
    priority_class_name: Subdomain | None = inherited(
        "Priority class.",
        default=None,
        extra=rules(("!self.startsWith('system-')", "must not be a class of the system")),
    )
    runtime_class_name: Subdomain | None = inherited("Runtime class.", default=None)
    labels: dict[str, LabelValue] = inherited(
        "More labels of the pods. A tier's keys go over those of spec.pod.",
        default_factory=dict,
        max_length=16,
        extra=rules(_KEYS, _OURS, _OF_KUBERNETES),
    )
    annotations: dict[str, AnnotationValue] = inherited(
        "More annotations of the pods. A tier's keys go over those of spec.pod.",
        default_factory=dict,
        max_length=16,
        extra=rules(_KEYS, _OURS, _UNCONFINED),
    )
    env: tuple[Variable, ...] = Field(
        default_factory=tuple,
        max_length=32,
        json_schema_extra={
            "x-kubernetes-list-type": "map",
            "x-kubernetes-list-map-keys": ["name"],
            **rules(_FREE_ENVIRONMENT),
        },
    )


class ClusterPod(PodSettings):
    """What holds for the pods of every tier, store gateways and the migration Job included.

    A tier's own pod goes before it: maps and env merge by key, every other list replaces.
    """

    affinity: Affinity | None = None
    service_account_annotations: dict[str, AnnotationValue] = stated(
        Edit.LIVE,
        "Annotations of the ServiceAccount of every pod, for a cloud's workload identity.",
        default_factory=dict,
        max_length=16,
        extra=rules(_KEYS, _OURS),
    )


def _amounts(sentence: str) -> Any:
    only = f"self.all(k, k in {_STANDARD})", "must be cpu, memory or ephemeral-storage"
    return inherited(sentence, default_factory=dict, max_length=3, extra=rules(only))


_WITHIN_LIMITS: Final = (
    (
        "!has(self.requests) || !has(self.limits) || self.requests.all(k, !(k in self.limits) || "
        "quantity(string(self.requests[k])).compareTo(quantity(string(self.limits[k]))) <= 0)"
    ),
    "must not exceed limits",
    ".requests",
)


class Resources(Object):
    """What the main container asks for and is held to; each is used as it stands.

    Where one is not stated the operator's own holds, and gives way where the two contradict.
    """

    RULES: ClassVar[tuple[tuple[str, str, str], ...]] = (_WITHIN_LIMITS,)
    requests: dict[str, Amount] = _amounts("What is set aside.")
    limits: dict[str, Amount] = _amounts("What it may use at most.")


def _devices(sentence: str) -> Any:
    known = (
        f"self.all(k, k in {_STANDARD} || k.size() <= 317 && k.matches('^[^/]+/{_NAME}$'))",
        "must be cpu, memory, ephemeral-storage or a device like nvidia.com/gpu",
    )
    whole = (
        "self.all(k, !k.contains('/') || string(self[k]).matches('^[0-9]{1,4}$'))",
        "must be a whole number for a device",
    )
    return inherited(sentence, default_factory=dict, max_length=6, extra=rules(known, whole))


class InferenceResources(Resources):
    """What Ollama asks for and is held to, devices included; a device needs its limit alone."""

    RULES: ClassVar = (
        _WITHIN_LIMITS,
        (
            (
                "!has(self.requests) || self.requests.all(k, !k.contains('/') || "
                "has(self.limits) && k in self.limits && "
                "string(self.limits[k]) == string(self.requests[k]))"
            ),
            "must ask for as many devices as its limits",
            ".requests",
        ),
    )
    requests: dict[str, Amount] = _devices("What is set aside.")
    limits: dict[str, Amount] = _devices("What it may use at most; devices stand here.")


class TierPod(PodSettings):
    """What holds for the pods of one tier, before spec.pod."""

    resources: Resources | None = None


class InferencePod(PodSettings):
    """What holds for the inference pods, before spec.pod; resources are Ollama's."""

    resources: InferenceResources | None = None


def merged(default: PodSettings | None, tier: PodSettings | None) -> PodSettings:
    """Return a tier's settings over the defaults: maps and env merge by key, lists replace.

    The result holds the fields that both have and no others.
    """
    under, over = default or PodSettings(), tier or PodSettings()
    values = {
        name: getattr(over, name) or getattr(under, name) for name in PodSettings.model_fields
    }
    for name in ("node_selector", "labels", "annotations"):
        values[name] = {**getattr(under, name), **getattr(over, name)}
    variables = {one.name: one for one in (*under.env, *over.env)}
    return PodSettings.model_construct(**{**values, "env": tuple(variables.values())})
