"""The inference tier: an Ollama as native sidecar, and the proxy that owns the queue before it."""

from __future__ import annotations

from typing import Final

from chatbot_core import names
from chatbot_core.names import Component, Role
from chatbot_core.v1alpha1.inference import ManagedInference
from chatbot_operator.desired import context, endpoints, pods, secrets
from chatbot_operator.desired.context import Context, Desired, Rank
from chatbot_operator.desired.endpoints import PROXY_RESOURCES
from chatbot_operator.desired.pods import Resources, RuntimeContainer
from chatbot_operator.model import Json

#: The limit is a fence, not a size: what a model needs is not known before it is loaded.
OLLAMA_RESOURCES: Final = Resources(cpu="250m", memory="512Mi", memory_limit="16Gi")
_HOME: Final = "/home/ollama"


def desired(ctx: Context) -> tuple[Desired, ...]:
    """Return the Deployments; the API finds their pods by their heartbeats, without a Service."""
    ollama = ctx.spec.inference.ollama
    if ollama is None:
        return endpoints.desired(ctx)
    mounts = secrets.mounts(ctx, Role.INFERENCE_PROXY)
    return (
        Desired(
            Rank.INFERENCE,
            _deployment(ctx, ollama, mounts),
            replicas=ollama.scaling.min_replicas,
            secrets=tuple(mount.secret for mount in mounts),
        ),
    )


def _deployment(ctx: Context, ollama: ManagedInference, mounts: tuple[secrets.Mount, ...]) -> Json:
    one = RuntimeContainer(
        Role.INFERENCE_PROXY, PROXY_RESOURCES, mounts, ports=(("proxy", names.PORT_PROXY),)
    )
    spec: Json = {
        **pods.pod_spec(ctx, pods.USER_ID, ctx.spec.inference.drain_seconds),
        "initContainers": [_ollama(ctx, ollama)],
        "containers": [pods.runtime_container(ctx, one)],
        "volumes": [
            *pods.runtime_volumes(ctx, one),
            pods.empty_dir("ollama-home", "64Mi"),
            pods.empty_dir("ollama-tmp", "1Gi"),
            *_cache(ollama),
        ],
    }
    component = Component.INFERENCE
    template = pods.template(ctx, component, spec, pods.boot_of(ctx, Role.INFERENCE_PROXY))
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": context.owned(ctx, names.child(ctx.cluster, component), component),
        "spec": {
            "selector": {"matchLabels": context.selector(ctx, component)},
            "strategy": {"type": "RollingUpdate", "rollingUpdate": _turnover(ollama, template)},
            "template": template,
        },
    }


def _turnover(ollama: ManagedInference, template: Json) -> Json:
    """Return which pods a roll-out may have too many or too few of."""
    spec = template["spec"]
    limits = {
        name
        for container in (*spec["initContainers"], *spec["containers"])
        for name in container["resources"].get("limits", {})
    }
    # An extended resource has a domain; the only GPU is seldom there twice.
    alone = ollama.scaling.min_replicas == 1 and any("/" in name for name in limits)
    rollout = ollama.rollout or ("Replace" if alone else "Surge")
    surge = rollout == "Surge"
    return {"maxUnavailable": int(not surge), "maxSurge": int(surge)}


def _cache(ollama: ManagedInference) -> list[Json]:
    if ollama.source == "Image":
        return []
    cache = ollama.model_cache
    return [pods.scratch_volume("models", cache.size, cache.storage_class_name)]


def _ollama(ctx: Context, ollama: ManagedInference) -> Json:
    """Return Ollama as an init container that restarts: it starts before the proxy, ends after."""
    held_by_image = ollama.source == "Image"
    cache = [] if held_by_image else [pods.mount("models", names.MODELS_DIR)]
    return {
        "name": "ollama",
        "image": ollama.image or ctx.choice.ollama,
        "imagePullPolicy": ctx.pull_policy,
        "restartPolicy": "Always",
        "command": ["ollama", "serve"],
        "env": pods.environment(_environment(ollama)),
        "resources": OLLAMA_RESOURCES.block(),
        "securityContext": pods.container_security(),
        # It listens on loopback, where no probe of kubelet's own reaches it.
        "livenessProbe": {
            "exec": {"command": ["ollama", "ps"]},
            "initialDelaySeconds": 30,
            "periodSeconds": 30,
            "timeoutSeconds": 20,
            "failureThreshold": 5,
        },
        "volumeMounts": [
            pods.mount("ollama-home", _HOME),
            pods.mount("ollama-tmp", "/tmp"),  # noqa: S108 - the container's own, not the host's
            *cache,
        ],
    }


def _environment(ollama: ManagedInference) -> dict[str, str]:
    return {
        "HOME": _HOME,
        "OLLAMA_HOST": f"127.0.0.1:{names.PORT_OLLAMA}",
        "OLLAMA_MODELS": names.MODELS_DIR,
        "OLLAMA_NUM_PARALLEL": str(ollama.parallel_requests),
        "OLLAMA_CONTEXT_LENGTH": str(ollama.context_tokens),
        "OLLAMA_KEEP_ALIVE": "-1" if ollama.idle == "Keep" else "5m",
        "OLLAMA_MAX_LOADED_MODELS": "1",
        # The models of an image stand on a read-only file system.
        "OLLAMA_NOPRUNE": "1",
    }
