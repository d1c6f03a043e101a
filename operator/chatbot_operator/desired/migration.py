"""The migration Job: named by what it is made from, created once, never changed."""

from __future__ import annotations

from typing import Any, Final

from chatbot_core import names
from chatbot_core.names import Component, Role
from chatbot_core.runtime_config import digest
from chatbot_operator.desired import context, pods, secrets, stated
from chatbot_operator.desired.context import Context, Desired, Rank
from chatbot_operator.desired.pods import Resources, RuntimeContainer
from chatbot_operator.model import Json

RESOURCES: Final = Resources(cpu="50m", memory="96Mi", memory_limit="256Mi")
#: With a pause that doubles up to five minutes: about an hour of a database that is away.
BACKOFF_LIMIT: Final = 20
_PREFIX_LENGTH: Final = len("v1:")


def name(ctx: Context) -> str:
    """Return the Job's name, made from image, boot section and the database it speaks to."""
    external = ctx.spec.database.external
    inputs: dict[str, Any] = {
        "image": ctx.choice.running,
        "boot": pods.boot_of(ctx, Role.MIGRATE),
        "database": None if external is None else external.model_dump(mode="json"),
        # A Job that finds no node is replaced when the settings of its pod are.
        **stated.of_every_pod(ctx.spec),
    }
    return names.migration(ctx.cluster, digest(inputs)[_PREFIX_LENGTH:])


def desired(ctx: Context) -> tuple[Desired, ...]:
    """Return the Job."""
    mounts = secrets.mounts(ctx, Role.MIGRATE)
    used = tuple(mount.secret for mount in mounts)
    return (Desired(Rank.MIGRATION, _job(ctx, mounts), secrets=used, once=True),)


def _job(ctx: Context, mounts: tuple[secrets.Mount, ...]) -> Json:
    one = RuntimeContainer(Role.MIGRATE, RESOURCES, mounts)
    container = pods.runtime_container(ctx, one)
    # A Job is judged by how it ends; it serves no port.
    for key in ("startupProbe", "livenessProbe", "readinessProbe", "ports"):
        container.pop(key)
    spec = {
        **pods.pod_spec(ctx, pods.USER_ID, 30),
        "restartPolicy": "OnFailure",
        "containers": [container],
        "volumes": pods.runtime_volumes(ctx, one),
    }
    component = Component.MIGRATE
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": context.owned(ctx, name(ctx), component),
        "spec": {
            "backoffLimit": BACKOFF_LIMIT,
            "template": pods.template(ctx, component, spec, pods.boot_of(ctx, Role.MIGRATE)),
        },
    }
