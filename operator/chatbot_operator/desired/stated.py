"""What a person states about pods, put over a finished pod template.

A template stays byte for byte as its builder made it where nothing is stated: a field that enters
the spec rolls no pod. The merge rule stands in `chatbot_core.v1alpha1.pods`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from chatbot_core import names, quantity
from chatbot_core.names import Component
from chatbot_core.v1alpha1 import ChatbotClusterSpec
from chatbot_core.v1alpha1.fields import Object
from chatbot_core.v1alpha1.outward import NEVER_PROXIED
from chatbot_core.v1alpha1.pods import InferencePod, Resources, TierPod, merged
from chatbot_operator.desired import context
from chatbot_operator.desired.context import Context
from chatbot_operator.model import Json

#: The container that a tier's resources speak of; elsewhere it has its component's name.
_MAIN: Final[dict[str, str]] = {Component.INFERENCE: "ollama", Component.DATABASE: "postgres"}
#: Containers that speak to what is outside; shards and the database never do.
_OUTWARD: Final = frozenset({"api", "ingest", "inference-proxy", "ollama", "erase"})


def template(ctx: Context, component: str, made: Json) -> Json:
    """Return a tier's pod template with the settings of `spec.pod` and of the tier over it."""
    tier = _tier_pod(ctx.spec, component)
    settings = merged(ctx.spec.pod, tier)
    metadata: Json = made["metadata"]
    if settings.labels:
        metadata = {**metadata, "labels": {**settings.labels, **metadata["labels"]}}
    if settings.annotations:
        ours = metadata.get("annotations", {})
        metadata = {**metadata, "annotations": {**settings.annotations, **ours}}
    affinity = ctx.spec.pod.affinity if ctx.spec.pod else None
    spread = [
        {**_plain(one), "labelSelector": {"matchLabels": context.selector(ctx, component)}}
        for one in settings.topology_spread_constraints
    ]
    placement = {
        "nodeSelector": settings.node_selector,
        "tolerations": [_plain(one) for one in settings.tolerations],
        "affinity": _plain(affinity) if affinity else None,
        "topologySpreadConstraints": spread,
        "priorityClassName": settings.priority_class_name,
        "runtimeClassName": settings.runtime_class_name,
        "imagePullSecrets": [_plain(one) for one in ctx.spec.image_pull_secrets],
    }
    spec = {**made["spec"], **{key: value for key, value in placement.items() if value}}
    proxies, env = _proxies(ctx.spec), [_plain(one) for one in settings.env]
    main = _MAIN.get(component.partition("-")[0], component.partition("-")[0])
    stated = (tier.resources if tier else None) or Resources()
    for key in ("initContainers", "containers"):
        if key in spec:
            spec[key] = [
                _container(
                    one,
                    [*(proxies if one["name"] in _OUTWARD else ()), *env],
                    stated if one["name"] == main else Resources(),
                )
                for one in spec[key]
            ]
    return {"metadata": metadata, "spec": spec}


def _proxies(spec: ChatbotClusterSpec) -> list[Json]:
    """Return the environment that HTTP clients read, [] where no proxy is stated."""
    proxy = spec.proxy
    if proxy is None:
        return []
    direct = ",".join((*NEVER_PROXIED, *proxy.no_proxy))
    values = zip(names.ENV_PROXIES, (proxy.http_proxy, proxy.https_proxy, direct), strict=True)
    return [{"name": name, "value": value} for name, value in values if value]


def _tier_pod(spec: ChatbotClusterSpec, component: str) -> TierPod | InferencePod | None:
    """Return what is stated for one tier; those of no tier have `spec.pod` only.

    These are store gateways, the migration, and the proxies before external endpoints.
    """
    managed, ollama = spec.database.managed, spec.inference.ollama
    tiers: Mapping[str, TierPod | InferencePod | None] = {
        Component.API: spec.api.pod,
        Component.INGEST: spec.ingest.pod,
        Component.SHARD: spec.retrieval.pod,
        Component.INFERENCE: ollama.pod if ollama else None,
        Component.DATABASE: managed.pod if managed else None,
    }
    return tiers.get(component.partition("-")[0])


def _container(made: Json, env: list[Json], stated: Resources) -> Json:
    container = {**made, "resources": resources(made["resources"], stated)}
    if env:
        container["env"] = [*container.get("env", ()), *env]
    return container


def resources(ours: Json, stated: Resources) -> Json:
    """Return a container's resources: what is stated as it stands, ours for everything else.

    A request of ours never exceeds a stated limit, nor a stated request a limit of ours: ours
    takes the stated amount, so that no container is without a memory limit.
    """
    requests = {**ours["requests"], **stated.requests}
    limits = {**ours["limits"], **stated.limits}
    for name in requests.keys() & limits.keys():
        if quantity.parse(requests[name]) <= quantity.parse(limits[name]):
            continue
        if name in stated.limits and name not in stated.requests:
            requests[name] = limits[name]
        elif name not in stated.limits:
            limits[name] = requests[name]
    return {"requests": requests, "limits": limits}


def of_every_pod(spec: ChatbotClusterSpec) -> Json:
    """Return what is stated for the pods of every tier, {} where nothing is."""
    pod = spec.pod.model_dump(mode="json", exclude_defaults=True) if spec.pod else {}
    pod.pop("service_account_annotations", None)
    pull = [one.name for one in spec.image_pull_secrets]
    return {key: value for key, value in {"pod": pod, "pull": pull}.items() if value}


def service_account_annotations(spec: ChatbotClusterSpec) -> Mapping[str, str]:
    """Return what the ServiceAccount carries beside our own annotation."""
    return spec.pod.service_account_annotations if spec.pod else {}


def _plain(value: Object) -> Any:
    """Return a stated object as it was written."""
    return value.model_dump(mode="json", by_alias=True, exclude_unset=True)
