"""Document stores of our own: an S3 gateway that alone mounts a claim."""

from __future__ import annotations

from typing import Final

from chatbot_core import names
from chatbot_core.names import Component
from chatbot_core.v1alpha1.storage import Claim
from chatbot_operator.desired import context, pods
from chatbot_operator.desired.context import Context, Desired, Rank
from chatbot_operator.desired.pods import Resources
from chatbot_operator.desired.secrets import RESTART_WHEN_CHANGED, Mount
from chatbot_operator.model import Json

RESOURCES: Final = Resources(cpu="50m", memory="64Mi", memory_limit="512Mi")
GRACE_S: Final = 30
_DATA: Final = "/data"
_SECRETS: Final = names.SECRETS_DIR
_HEALTH: Final = "/healthz"

#: versitygw reads its root keys from the environment or from arguments only: the shell reads the
#: mounted files, so that no pod spec and no `kubectl describe` knows of them. Metadata stands in
#: files of its own, because not every volume has extended attributes.
START: Final = f"""\
set -eu
umask 077
{RESTART_WHEN_CHANGED}\
mkdir -p {_DATA}/objects {_DATA}/metadata
ROOT_ACCESS_KEY_ID=$(cat {_SECRETS}/{names.KEY_ACCESS_KEY_ID})
ROOT_SECRET_ACCESS_KEY=$(cat {_SECRETS}/{names.KEY_SECRET_ACCESS_KEY})
export ROOT_ACCESS_KEY_ID ROOT_SECRET_ACCESS_KEY
exec versitygw --port :{names.PORT_STORE} --health {_HEALTH} --quiet --keep-alive \\
  posix --sidecar {_DATA}/metadata {_DATA}/objects
"""


def component(store: str) -> str:
    """Return a store's component label."""
    return f"{Component.STORE.value}-{store}"


def desired(ctx: Context) -> tuple[Desired, ...]:
    """Return claim, Deployment and Service of each store that is a claim of ours."""
    found: list[Desired] = []
    for store in ctx.spec.documents.stores:
        if store.pvc is not None:
            found += _gateway(ctx, store.name, store.pvc)
    return tuple(found)


def _gateway(ctx: Context, store: str, stated: Claim) -> list[Desired]:
    name, own = names.store(ctx.cluster, store), component(store)
    secret = names.store_secret(ctx.cluster, store)
    claim = context.claim(ctx, name, own, stated.size, stated.storage_class_name)
    service = context.service(ctx, name, own, {"s3": (names.PORT_STORE,) * 2})
    return [
        Desired(Rank.STORAGE, claim),
        Desired(Rank.DOCUMENTS, service),
        Desired(Rank.DOCUMENTS, _deployment(ctx, store, secret), replicas=1, secrets=(secret,)),
    ]


def _deployment(ctx: Context, store: str, secret: str) -> Json:
    """Return a Deployment of one: the name of a StatefulSet must not be as long as a store's."""
    name, own = names.store(ctx.cluster, store), component(store)
    keys = (names.KEY_ACCESS_KEY_ID, names.KEY_SECRET_ACCESS_KEY)
    mounts = (Mount(secret, tuple((key, key) for key in keys)),)
    spec = {
        **pods.pod_spec(ctx, pods.USER_ID, GRACE_S, claims=True),
        "containers": [_container(ctx)],
        "volumes": [
            pods.claim_volume("data", name),
            pods.secrets_volume("secrets", mounts),
            pods.empty_dir("tmp", pods.TMP_SIZE),
        ],
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": context.owned(ctx, name, own),
        "spec": {
            "selector": {"matchLabels": context.selector(ctx, own)},
            "strategy": {"type": "Recreate"},
            "template": pods.template(ctx, own, spec),
        },
    }


def _container(ctx: Context) -> Json:
    healthy = {"httpGet": {"path": _HEALTH, "port": names.PORT_STORE}, "timeoutSeconds": 5}
    return {
        "name": "versitygw",
        "image": ctx.choice.store,
        "imagePullPolicy": ctx.pull_policy,
        "command": ["sh", "-c", START],
        "ports": [{"name": "s3", "containerPort": names.PORT_STORE, "protocol": "TCP"}],
        "resources": RESOURCES.block(),
        "securityContext": pods.container_security(),
        "startupProbe": {**healthy, "periodSeconds": 2, "failureThreshold": 60},
        "livenessProbe": {**healthy, "periodSeconds": 15, "failureThreshold": 6},
        "readinessProbe": {**healthy, "periodSeconds": 5, "failureThreshold": 2},
        "volumeMounts": [
            pods.mount("data", _DATA),
            pods.mount("secrets", _SECRETS, read_only=True),
            pods.mount("tmp", "/tmp"),  # noqa: S108 - the container's own, not the host's
        ],
    }
