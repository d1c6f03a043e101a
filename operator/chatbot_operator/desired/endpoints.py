"""The proxies before Ollamas that are not ours: a Deployment of one for each endpoint."""

from __future__ import annotations

from typing import Final

from chatbot_core import names
from chatbot_core.names import Component, Role
from chatbot_core.runtime_config import section_hash
from chatbot_core.v1alpha1.inference import Endpoint
from chatbot_operator.desired import config, context, pods, secrets
from chatbot_operator.desired.context import Context, Desired, Rank
from chatbot_operator.desired.pods import Resources, RuntimeContainer
from chatbot_operator.model import Json

PROXY_RESOURCES: Final = Resources(cpu="50m", memory="96Mi", memory_limit="256Mi")


def component(endpoint: str) -> str:
    """Return the component label of an endpoint's proxy."""
    return f"{Component.INFERENCE.value}-{endpoint}"


def desired(ctx: Context) -> tuple[Desired, ...]:
    """Return one Deployment an endpoint, named after it: their order in the spec means nothing."""
    return tuple(_proxy(ctx, endpoint) for endpoint in ctx.spec.inference.endpoints)


def _proxy(ctx: Context, endpoint: Endpoint) -> Desired:
    mounts = (*secrets.mounts(ctx, Role.INFERENCE_PROXY), *secrets.endpoint_mounts(endpoint))
    return Desired(
        Rank.INFERENCE,
        _deployment(ctx, endpoint, mounts),
        replicas=1,
        secrets=tuple(mount.secret for mount in mounts),
    )


def _deployment(ctx: Context, endpoint: Endpoint, mounts: tuple[secrets.Mount, ...]) -> Json:
    own = component(endpoint.name)
    one = RuntimeContainer(
        Role.INFERENCE_PROXY,
        PROXY_RESOURCES,
        mounts,
        ports=(("proxy", names.PORT_PROXY),),
        arguments=("--endpoint", endpoint.name),
    )
    spec: Json = {
        **pods.pod_spec(ctx, pods.USER_ID, ctx.spec.inference.drain_seconds),
        "containers": [pods.runtime_container(ctx, one)],
        "volumes": pods.runtime_volumes(ctx, one),
    }
    boot = section_hash(config.endpoint_boot(ctx.spec.inference, endpoint))
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": context.owned(ctx, names.endpoint(ctx.cluster, endpoint.name), own),
        "spec": {
            "selector": {"matchLabels": context.selector(ctx, own)},
            # Two stand before the endpoint while one drains; it takes no new question any more.
            "strategy": {
                "type": "RollingUpdate",
                "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1},
            },
            "template": pods.template(ctx, own, spec, boot),
        },
    }
