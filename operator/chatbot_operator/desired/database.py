"""The managed database: one PostgreSQL over one claim, for trials and small installations."""

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

RESOURCES: Final = Resources(cpu="100m", memory="256Mi", memory_limit="1Gi")
GRACE_S: Final = 60
_DATA: Final = "/data"
_SECRETS: Final = names.SECRETS_DIR
_SOCKETS: Final = "/var/run/postgresql"

#: Works with every image whose PATH holds bash, initdb and postgres, as the official one's does.
#: The data folder gets its name only when role and database exist, so that a start that was cut
#: short is repeated. Passwords are set at every start by a backend that nobody can connect to:
#: rotation is an edit of the Secret, which restarts the container.
START: Final = f"""\
set -euo pipefail
umask 077
{RESTART_WHEN_CHANGED}\
data={_DATA}/pgdata
quoted() {{ local text; text=$(<"{_SECRETS}/$1"); printf "'%s'" "${{text//\\'/\\'\\'}}"; }}
alone() {{ postgres --single -D "$1" -c log_min_messages=fatal postgres >/dev/null; }}
if [[ ! -s $data/PG_VERSION ]]; then
  rm -rf "$data.new"
  initdb -D "$data.new" -U postgres --encoding=UTF8 --locale=C.UTF-8 --data-checksums \\
    --auth-local=trust --auth-host=scram-sha-256 >/dev/null
  printf 'CREATE ROLE {names.DATABASE_ROLE} LOGIN\\n' | alone "$data.new"
  printf 'CREATE DATABASE {names.DATABASE_NAME} OWNER {names.DATABASE_ROLE}\\n' | alone "$data.new"
  mv "$data.new" "$data"
fi
chmod 700 "$data"
printf 'local all all trust\\nhost all all all scram-sha-256\\n' >"$data/pg_hba.conf"
{{
  printf 'ALTER ROLE {names.DATABASE_ROLE} PASSWORD %s\\n' "$(quoted {names.KEY_PASSWORD})"
  printf 'ALTER ROLE postgres PASSWORD %s\\n' "$(quoted {names.KEY_SUPERUSER_PASSWORD})"
}} | alone "$data"
exec postgres -D "$data" -c listen_addresses='*' -c port={names.PORT_DATABASE} \\
  -c unix_socket_directories={_SOCKETS} -c shared_buffers=96MB -c max_connections=200
"""


def desired(ctx: Context) -> tuple[Desired, ...]:
    """Return claim, StatefulSet and Service; nothing where the database is somebody else's."""
    stated = ctx.spec.database.claim
    if stated is None:
        return ()
    name, component = names.child(ctx.cluster, Component.DATABASE), Component.DATABASE
    secret = names.database_secret(ctx.cluster)
    ports = {"postgres": (names.PORT_DATABASE,) * 2}
    return (
        Desired(Rank.STORAGE, claim(ctx, name, stated)),
        Desired(Rank.DATABASE, context.service(ctx, name, component, ports)),
        Desired(Rank.DATABASE, _stateful_set(ctx, name, secret), replicas=1, secrets=(secret,)),
    )


def claim(ctx: Context, name: str, stated: Claim) -> Json:
    """Return the claim that holds the database."""
    return context.claim(ctx, name, Component.DATABASE, stated.size, stated.storage_class_name)


def _stateful_set(ctx: Context, name: str, secret: str) -> Json:
    """Return a set of one: unlike a Deployment it never starts a pod beside a lost one."""
    mounts = (
        Mount(
            secret,
            (
                (names.KEY_PASSWORD, names.KEY_PASSWORD),
                (names.KEY_SUPERUSER_PASSWORD, names.KEY_SUPERUSER_PASSWORD),
            ),
        ),
    )
    spec = {
        **pods.pod_spec(ctx, pods.DATABASE_USER_ID, GRACE_S, claims=True),
        "containers": [_container(ctx)],
        "volumes": [
            pods.claim_volume("data", name),
            pods.secrets_volume("secrets", mounts),
            pods.empty_dir("sockets", "16Mi"),
            pods.empty_dir("tmp", pods.TMP_SIZE),
        ],
    }
    component = Component.DATABASE
    return {
        "apiVersion": "apps/v1",
        "kind": "StatefulSet",
        "metadata": context.owned(ctx, name, component),
        "spec": {
            "serviceName": name,
            "podManagementPolicy": "Parallel",
            "updateStrategy": {"type": "RollingUpdate"},
            "selector": {"matchLabels": context.selector(ctx, component)},
            "template": pods.template(ctx, component, spec),
        },
    }


def _container(ctx: Context) -> Json:
    ready = {"exec": {"command": ["pg_isready", "-q", "-h", _SOCKETS, "-U", "postgres"]}}
    return {
        "name": "postgres",
        "image": ctx.choice.database,
        "imagePullPolicy": ctx.pull_policy,
        "command": ["bash", "-c", START],
        "ports": [{"name": "postgres", "containerPort": names.PORT_DATABASE, "protocol": "TCP"}],
        "resources": RESOURCES.block(),
        "securityContext": pods.container_security(),
        # Fast shutdown; at SIGTERM PostgreSQL would wait until the last client has left.
        "lifecycle": {"preStop": {"exec": {"command": ["bash", "-c", "kill -INT 1"]}}},
        # Recovery after a crash is work of the start: ten minutes before anybody interferes.
        "startupProbe": {**ready, "periodSeconds": 2, "timeoutSeconds": 5, "failureThreshold": 300},
        "livenessProbe": {
            **ready,
            "periodSeconds": 15,
            "timeoutSeconds": 10,
            "failureThreshold": 6,
        },
        "readinessProbe": {**ready, "periodSeconds": 5, "timeoutSeconds": 5, "failureThreshold": 2},
        "volumeMounts": [
            pods.mount("data", _DATA),
            pods.mount("secrets", _SECRETS, read_only=True),
            pods.mount("sockets", _SOCKETS),
            pods.mount("tmp", "/tmp"),  # noqa: S108 - the container's own, not the host's
        ],
    }
