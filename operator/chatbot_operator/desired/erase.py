"""The erase Job: what lies outside of Kubernetes goes before the object does."""

from __future__ import annotations

from typing import Final

from chatbot_core import names
from chatbot_core.names import Component, Role
from chatbot_operator.desired import context, pods, secrets
from chatbot_operator.desired.context import Context, Desired, Rank
from chatbot_operator.desired.pods import Resources, RuntimeContainer
from chatbot_operator.model import Json

RESOURCES: Final = Resources(cpu="50m", memory="96Mi", memory_limit="256Mi")
#: Some ten million objects: a thousand go in a fifth of a second.
DEADLINE_S: Final = 3600
BACKOFF_LIMIT: Final = 20


def is_needed(ctx: Context) -> bool:
    """Return whether the end of the object leaves something that no garbage collector removes."""
    return bool(ctx.boot.erase.stores) or ctx.boot.erase.database


def targets(ctx: Context) -> str:
    """Return in words for people what is erased."""
    boot = ctx.boot.erase
    found = [f"objects in s3://{one.bucket}/{one.prefix} (store {one.name})" for one in boot.stores]
    external = ctx.spec.database.external
    if boot.database and external is not None:
        found.append(f"tables in the database that Secret {external.secret_ref.name} opens")
    return " and ".join(found) or "nothing"


def desired(ctx: Context) -> Desired | None:
    """Return the Job, None where nothing lies outside; it runs when the object is deleted."""
    if not is_needed(ctx):
        return None
    mounts = secrets.mounts(ctx, Role.ERASE)
    # The Secrets block nothing: kubelet waits for them, within the Job's deadline.
    return Desired(Rank.MIGRATION, _job(ctx, mounts), once=True)


def _job(ctx: Context, mounts: tuple[secrets.Mount, ...]) -> Json:
    one = RuntimeContainer(Role.ERASE, RESOURCES, mounts)
    container = pods.runtime_container(ctx, one)
    # A Job is judged by how it ends; it serves no port.
    for key in ("startupProbe", "livenessProbe", "readinessProbe", "ports"):
        container.pop(key)
    container["terminationMessagePolicy"] = "FallbackToLogsOnError"
    spec = {
        **pods.pod_spec(ctx, pods.USER_ID, 30),
        "restartPolicy": "OnFailure",
        "containers": [container],
        "volumes": pods.runtime_volumes(ctx, one),
    }
    component = Component.ERASE
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": context.owned(ctx, names.child(ctx.cluster, component), component),
        "spec": {
            "backoffLimit": BACKOFF_LIMIT,
            "activeDeadlineSeconds": DEADLINE_S,
            "template": pods.template(ctx, component, spec, pods.boot_of(ctx, Role.ERASE)),
        },
    }
