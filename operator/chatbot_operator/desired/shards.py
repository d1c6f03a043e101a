"""The vector tier: one StatefulSet and one headless Service a shard."""

from __future__ import annotations

from typing import Final

from chatbot_core import names
from chatbot_core.names import Component, Role
from chatbot_operator.desired import context, pods, secrets
from chatbot_operator.desired.context import Context, Desired, Rank
from chatbot_operator.desired.pods import Resources, RuntimeContainer
from chatbot_operator.model import Json

RESOURCES: Final = Resources(cpu="100m", memory="256Mi", memory_limit="2Gi")
GRACE_S: Final = 30
#: Loading its slots from the database is work before readiness, not before liveness.
STARTUP_S: Final = 120


def component(index: int) -> str:
    """Return a shard's component label: its own, so that selectors never overlap."""
    return f"{Component.SHARD.value}-{index}"


def desired(ctx: Context) -> tuple[Desired, ...]:
    """Return every shard's StatefulSet and Service."""
    mounts = secrets.mounts(ctx, Role.SHARD)
    used = tuple(mount.secret for mount in mounts)
    found: list[Desired] = []
    for index in range(ctx.spec.retrieval.shards):
        found += (
            Desired(
                Rank.SHARDS,
                _stateful_set(ctx, index, mounts),
                replicas=ctx.spec.retrieval.replicas_per_shard,
                secrets=used,
            ),
            Desired(Rank.SHARDS, _service(ctx, index)),
        )
    return tuple(found)


def _service(ctx: Context, index: int) -> Json:
    name, ports = names.shard(ctx.cluster, index), {"shard": (names.PORT_SHARD,) * 2}
    service = context.service(ctx, name, component(index), ports)
    # Routers ask a shard that is still loading, and get its reason instead of silence.
    headless = {**service["spec"], "clusterIP": "None", "publishNotReadyAddresses": True}
    return {**service, "spec": headless}


def _stateful_set(ctx: Context, index: int, mounts: tuple[secrets.Mount, ...]) -> Json:
    one = RuntimeContainer(
        Role.SHARD,
        RESOURCES,
        mounts,
        ports=(("shard", names.PORT_SHARD),),
        arguments=("--index", str(index)),
        scratch=(names.SCRATCH_DIR,),
        startup_s=STARTUP_S,
    )
    storage = ctx.spec.retrieval.storage
    scratch = pods.scratch_volume("scratch-0", storage.size, storage.storage_class_name)
    with_claim = storage.storage_class_name is not None
    spec = {
        **pods.pod_spec(ctx, pods.USER_ID, GRACE_S, claims=with_claim),
        "containers": [pods.runtime_container(ctx, one)],
        "volumes": [*pods.runtime_volumes(ctx, one), scratch],
    }
    name, own = names.shard(ctx.cluster, index), component(index)
    return {
        "apiVersion": "apps/v1",
        "kind": "StatefulSet",
        "metadata": context.owned(ctx, name, own),
        "spec": {
            "serviceName": name,
            "podManagementPolicy": "Parallel",
            "updateStrategy": {"type": "RollingUpdate"},
            "selector": {"matchLabels": context.selector(ctx, own)},
            "template": pods.template(ctx, own, spec, pods.boot_of(ctx, Role.SHARD)),
        },
    }
