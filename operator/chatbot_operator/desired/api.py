"""The API tier: the only one that people reach."""

from __future__ import annotations

from typing import Final

from chatbot_core import names
from chatbot_core.names import Component, Role
from chatbot_operator.desired import context, pods, secrets
from chatbot_operator.desired.context import Context, Desired, Rank
from chatbot_operator.desired.pods import Resources, RuntimeContainer
from chatbot_operator.model import Json

#: The embedder's weights and a batch; uploads pass through /tmp.
RESOURCES: Final = Resources(cpu="100m", memory="256Mi", memory_limit="1Gi")
TMP_SIZE: Final = "2Gi"
SERVICE_PORT: Final = 80
#: An ending pod serves on until every kube-proxy has heard that it is no endpoint any more.
LEAVE_S: Final = 5


def desired(ctx: Context) -> tuple[Desired, ...]:
    """Return the Deployment and the Service under which people reach it."""
    name = names.child(ctx.cluster, Component.API)
    mounts = secrets.mounts(ctx, Role.API)
    ports = {"http": (SERVICE_PORT, names.PORT_PUBLIC)}
    return (
        Desired(
            Rank.API,
            _deployment(ctx, name, mounts),
            replicas=ctx.spec.api.scaling.min_replicas,
            secrets=tuple(mount.secret for mount in mounts),
        ),
        Desired(Rank.API, context.service(ctx, name, Component.API, ports)),
    )


def _deployment(ctx: Context, name: str, mounts: tuple[secrets.Mount, ...]) -> Json:
    one = RuntimeContainer(
        Role.API, RESOURCES, mounts, ports=(("http", names.PORT_PUBLIC),), startup_s=180
    )
    leave = {"lifecycle": {"preStop": {"sleep": {"seconds": LEAVE_S}}}}
    spec = {
        **pods.pod_spec(ctx, pods.USER_ID, ctx.spec.inference.drain_seconds + LEAVE_S),
        "containers": [pods.runtime_container(ctx, one) | leave],
        "volumes": pods.runtime_volumes(ctx, one, TMP_SIZE),
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": context.owned(ctx, name, Component.API),
        "spec": {
            "selector": {"matchLabels": context.selector(ctx, Component.API)},
            "strategy": {
                "type": "RollingUpdate",
                "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1},
            },
            "template": pods.template(ctx, Component.API, spec, pods.boot_of(ctx, Role.API)),
        },
    }
