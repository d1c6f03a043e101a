"""Pods of every tier: the restricted security profile, probes, volumes, the runtime's container."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from chatbot_core import names
from chatbot_core.names import Role
from chatbot_core.runtime_config import boot_hash
from chatbot_operator.desired import context, stated
from chatbot_operator.desired.context import Context
from chatbot_operator.desired.secrets import Mount
from chatbot_operator.model import Json

USER_ID: Final = 10001
DATABASE_USER_ID: Final = 999
TMP_SIZE: Final = "64Mi"
_STARTUP_PERIOD_S: Final = 2


@dataclass(frozen=True, slots=True)
class Resources:
    """Requests and the memory limit; CPU has none, so that a burst is not throttled."""

    cpu: str
    memory: str
    memory_limit: str

    def block(self) -> Json:
        """Return the container's `resources`."""
        return {
            "requests": {"cpu": self.cpu, "memory": self.memory},
            "limits": {"memory": self.memory_limit},
        }


@dataclass(frozen=True, slots=True)
class RuntimeContainer:
    """One process of the runtime image. `startup_s` is the time it has before it must be alive."""

    role: Role
    resources: Resources
    mounts: tuple[Mount, ...]
    ports: tuple[tuple[str, int], ...] = ()
    arguments: tuple[str, ...] = ()
    scratch: tuple[str, ...] = ()
    startup_s: int = 120


def container_security() -> Json:
    """Return what the Pod Security Standard `restricted` asks of a container, and more."""
    return {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }


def pod_spec(ctx: Context, user_id: int, grace_s: int, *, claims: bool = False) -> Json:
    """Return the part of a pod's spec that all tiers share."""
    security: Json = {
        "runAsNonRoot": True,
        "runAsUser": user_id,
        "runAsGroup": user_id,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    if claims:
        # OnRootMismatch: PostgreSQL refuses a data folder whose mode a mount has widened.
        security |= {"fsGroup": user_id, "fsGroupChangePolicy": "OnRootMismatch"}
    return {
        "serviceAccountName": names.service_account(ctx.cluster),
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": grace_s,
        "securityContext": security,
    }


def template(ctx: Context, component: str, spec: Json, boot: str = "") -> Json:
    """Return a pod template with what is stated about its pods.

    `boot` is the hash of what its processes read at start only.
    """
    metadata: Json = {"labels": context.pod_labels(ctx, component)}
    if boot:
        metadata["annotations"] = {names.ANNOTATION_BOOT: boot}
    return stated.template(ctx, component, {"metadata": metadata, "spec": spec})


def boot_of(ctx: Context, role: Role) -> str:
    """Return the hash of a role's boot section."""
    return boot_hash(ctx.boot, role)


def empty_dir(name: str, size_limit: str) -> Json:
    """Return a volume that goes with its pod."""
    return {"name": name, "emptyDir": {"sizeLimit": size_limit}}


def scratch_volume(name: str, size: str, storage_class: str | None) -> Json:
    """Return storage that may be lost: an emptyDir, or a generic ephemeral claim of a class."""
    if storage_class is None:
        return empty_dir(name, size)
    claim: Json = {
        "accessModes": ["ReadWriteOnce"],
        "storageClassName": storage_class,
        "resources": {"requests": {"storage": size}},
    }
    return {"name": name, "ephemeral": {"volumeClaimTemplate": {"spec": claim}}}


def claim_volume(name: str, claim: str) -> Json:
    """Return a volume that a claim of ours backs."""
    return {"name": name, "persistentVolumeClaim": {"claimName": claim}}


def mount(name: str, path: str, *, read_only: bool = False) -> Json:
    """Return where a container sees a volume."""
    where: Json = {"name": name, "mountPath": path}
    return {**where, "readOnly": True} if read_only else where


def secrets_volume(name: str, mounts: tuple[Mount, ...]) -> Json:
    """Return one volume with files of several Secrets.

    Everybody may read them there: a pod without fsGroup has no other way, and is alone in it.
    """
    sources = [one.source() for one in mounts]
    return {"name": name, "projected": {"defaultMode": 0o444, "sources": sources}}


def environment(values: dict[str, str]) -> list[Json]:
    """Return plain environment variables; never for secrets."""
    return [{"name": name, "value": value} for name, value in values.items()]


def _downward_environment() -> list[Json]:
    paths = {
        names.ENV_POD_NAME: "metadata.name",
        names.ENV_POD_IP: "status.podIP",
        names.ENV_NAMESPACE: "metadata.namespace",
    }
    return [
        {"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}}
        for name, path in paths.items()
    ]


def _probe(path: str, period_s: int, failures: int) -> Json:
    return {
        "httpGet": {"path": path, "port": names.PORT_INTERNAL},
        "periodSeconds": period_s,
        "timeoutSeconds": 5,
        "failureThreshold": failures,
    }


def runtime_container(ctx: Context, one: RuntimeContainer) -> Json:
    """Return the container of a role; readiness is its own word, at its internal port."""
    ports = (*one.ports, ("internal", names.PORT_INTERNAL))
    return {
        "name": one.role.value,
        "image": ctx.choice.running,
        "imagePullPolicy": ctx.runtime_pull_policy,
        "command": [
            "chatbot-runtime",
            one.role.value,
            "--config",
            names.CONFIG_FILE,
            *one.arguments,
        ],
        "env": _downward_environment(),
        "ports": [{"name": name, "containerPort": port, "protocol": "TCP"} for name, port in ports],
        "resources": one.resources.block(),
        "securityContext": container_security(),
        "startupProbe": _probe(
            "/livez", _STARTUP_PERIOD_S, max(1, one.startup_s // _STARTUP_PERIOD_S)
        ),
        "livenessProbe": _probe("/livez", 10, 6),
        "readinessProbe": _probe("/readyz", 5, 2),
        "volumeMounts": [
            mount("config", names.CONFIG_DIR, read_only=True),
            mount("secrets", names.SECRETS_DIR, read_only=True),
            mount("tmp", "/tmp"),  # noqa: S108 - the only writable folder of a read-only image
            *(mount(f"scratch-{i}", path) for i, path in enumerate(one.scratch)),
        ],
    }


def runtime_volumes(ctx: Context, one: RuntimeContainer, tmp_size: str = TMP_SIZE) -> list[Json]:
    """Return the volumes that every runtime container mounts; the choice stays out of its sight."""
    items = [{"key": names.CONFIG_KEY, "path": names.CONFIG_KEY}]
    config = {"name": names.config_map(ctx.cluster), "items": items}
    return [
        {"name": "config", "configMap": config},
        secrets_volume("secrets", one.mounts),
        empty_dir("tmp", tmp_size),
    ]
