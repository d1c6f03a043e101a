"""The ingest tier: workers that take jobs from the database and commit chunks."""

from __future__ import annotations

from typing import Final

from chatbot_core import names
from chatbot_core.names import Component, Role
from chatbot_operator.desired import context, pods, secrets
from chatbot_operator.desired.context import Context, Desired, Rank
from chatbot_operator.desired.pods import Resources, RuntimeContainer
from chatbot_operator.model import Json

RESOURCES: Final = Resources(cpu="150m", memory="384Mi", memory_limit="1536Mi")
TMP_SIZE: Final = "2Gi"
#: A job whose worker ends is taken again after its lease: there is no need to wait for it.
GRACE_S: Final = 30


def desired(ctx: Context) -> tuple[Desired, ...]:
    """Return the Deployment."""
    mounts = secrets.mounts(ctx, Role.INGEST)
    one = RuntimeContainer(Role.INGEST, RESOURCES, mounts, startup_s=180)
    spec = {
        **pods.pod_spec(ctx, pods.USER_ID, GRACE_S),
        "containers": [pods.runtime_container(ctx, one)],
        "volumes": pods.runtime_volumes(ctx, one, TMP_SIZE),
    }
    return (
        Desired(
            Rank.INGEST,
            _deployment(ctx, spec),
            replicas=ctx.spec.ingest.scaling.min_replicas,
            secrets=tuple(mount.secret for mount in mounts),
        ),
    )


def _deployment(ctx: Context, spec: Json) -> Json:
    name = names.child(ctx.cluster, Component.INGEST)
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": context.owned(ctx, name, Component.INGEST),
        "spec": {
            "selector": {"matchLabels": context.selector(ctx, Component.INGEST)},
            # Workers share jobs through the database: none is missed while one is replaced.
            "strategy": {
                "type": "RollingUpdate",
                "rollingUpdate": {"maxUnavailable": 1, "maxSurge": 0},
            },
            "template": pods.template(ctx, Component.INGEST, spec, pods.boot_of(ctx, Role.INGEST)),
        },
    }
