"""Every name that operator and runtime must agree on.

Children, labels, ports, mount paths, files and Secret keys. What is immutable in Kubernetes
(selectors, Service names, claim names) is derived here and nowhere else.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final

GROUP: Final = "chatbot.i4c.io"
VERSION: Final = "v1alpha1"
KIND: Final = "ChatbotCluster"
PLURAL: Final = "chatbotclusters"
SINGULAR: Final = "chatbotcluster"
SHORT_NAME: Final = "cbc"
API_VERSION: Final = f"{GROUP}/{VERSION}"

#: Longest name of a ChatbotCluster: children add at most 22 characters and must fit 63.
NAME_MAX_LENGTH: Final = 40

# Field managers. The scaler owns `replicas` and nothing else, from the first apply on.
MANAGER: Final = "chatbot-operator"
SCALER_MANAGER: Final = "chatbot-operator-scaler"
STATUS_MANAGER: Final = "chatbot-operator-status"

# Labels and annotations.
LABEL_NAME: Final = "app.kubernetes.io/name"
LABEL_INSTANCE: Final = "app.kubernetes.io/instance"
LABEL_COMPONENT: Final = "app.kubernetes.io/component"
LABEL_MANAGED_BY: Final = "app.kubernetes.io/managed-by"
LABEL_VERSION: Final = "app.kubernetes.io/version"
LABEL_RETAINED_FROM: Final = f"{GROUP}/retained-from"
ANNOTATION_APPLIED: Final = f"{GROUP}/applied"
#: Hash of a workload's pod template as applied: tells a roll-out from a change of metadata.
ANNOTATION_TEMPLATE: Final = f"{GROUP}/template"
ANNOTATION_BOOT: Final = f"{GROUP}/boot"
#: On the ServiceAccount: a second copy of what CHOICE_KEY holds in the ConfigMap.
ANNOTATION_CHOICE: Final = f"{GROUP}/choice"
#: On what outlives its ChatbotCluster: the UID of the object it serves now.
ANNOTATION_CLUSTER_UID: Final = f"{GROUP}/cluster-uid"
APP_NAME: Final = "chatbot"
#: Holds an object of policy Delete until what lies outside of Kubernetes is erased.
FINALIZER: Final = f"{GROUP}/erase"


class Component(StrEnum):
    """The tiers; values of the component label and suffixes of children's names."""

    API = "api"
    SHARD = "shard"
    INGEST = "ingest"
    INFERENCE = "inference"
    DATABASE = "database"
    STORE = "store"
    MIGRATE = "migrate"
    ERASE = "erase"
    CONFIG = "config"


class Role(StrEnum):
    """The processes of the runtime image: `chatbot-runtime ROLE`."""

    API = "api"
    SHARD = "shard"
    INGEST = "ingest"
    INFERENCE_PROXY = "inference-proxy"
    MIGRATE = "migrate"
    ERASE = "erase"
    DEMO = "demo"


def child(cluster: str, component: Component) -> str:
    """Return the name of a tier's one child of a kind: `<cluster>-api`."""
    return f"{cluster}-{component.value}"


def shard(cluster: str, index: int) -> str:
    """Return the name of a shard's StatefulSet and headless Service: `<cluster>-shard-0`."""
    return f"{cluster}-shard-{index}"


def store(cluster: str, name: str) -> str:
    """Return the name of an S3 gateway's Deployment, Service and claim: `<cluster>-store-main`."""
    return f"{cluster}-store-{name}"


def endpoint(cluster: str, name: str) -> str:
    """Return the name of an external endpoint's proxy: `<cluster>-inference-gpu`."""
    return f"{cluster}-inference-{name}"


def migration(cluster: str, input_hash: str) -> str:
    """Return the name of the migration Job of one input: `<cluster>-migrate-1a2b3c4d`."""
    return f"{cluster}-migrate-{input_hash[:8]}"


def config_map(cluster: str) -> str:
    """Return the name of the ConfigMap that holds the RuntimeConfig."""
    return f"{cluster}-config"


def service_account(cluster: str) -> str:
    """Return the name of the ServiceAccount of every pod; no token is ever mounted."""
    return f"{cluster}-runtime"


def internal_secret(cluster: str) -> str:
    """Return the name of the Secret with the token between processes."""
    return f"{cluster}-internal"


def database_secret(cluster: str) -> str:
    """Return the name of the generated Secret of the managed database."""
    return f"{cluster}-database"


def store_secret(cluster: str, name: str) -> str:
    """Return the name of the generated Secret of a store's S3 gateway."""
    return f"{cluster}-store-{name}"


def admin_secret(cluster: str) -> str:
    """Return the name of the generated Secret of the first admin."""
    return f"{cluster}-admin"


def retained_from(namespace: str, cluster: str) -> str:
    """Return the value of the label on objects that outlive their ChatbotCluster."""
    return f"{namespace}.{cluster}"


# Keys of Secrets. A Secret that a user names may use other keys: the spec says which.
KEY_TOKEN: Final = "token"  # noqa: S105 - the name of a key
KEY_DSN: Final = "dsn"
KEY_USERNAME: Final = "username"
KEY_PASSWORD: Final = "password"  # noqa: S105 - the name of a key
KEY_SUPERUSER_PASSWORD: Final = "superuser-password"  # noqa: S105 - the name of a key
KEY_ACCESS_KEY_ID: Final = "accessKeyId"
KEY_SECRET_ACCESS_KEY: Final = "secretAccessKey"  # noqa: S105 - the name of a key

# Key of the ConfigMap and where every runtime container finds it.
CONFIG_KEY: Final = "runtime.json"
#: Second key of the ConfigMap: version and images chosen at first sight; no pod mounts it.
CHOICE_KEY: Final = "choice.json"
CONFIG_DIR: Final = "/etc/chatbot/config"
CONFIG_FILE: Final = f"{CONFIG_DIR}/{CONFIG_KEY}"

# Secrets are mounted as files below this folder, one folder a Secret, one file a key.
SECRETS_DIR: Final = "/etc/chatbot/secrets"
FILE_DSN: Final = "database/dsn"
FILE_DATABASE_CA: Final = "database/ca.crt"
FILE_INTERNAL_TOKEN: Final = "internal/token"  # noqa: S105 - a path
#: Folder of the only document store; each of several has one of its own below it.
DOCUMENTS_FOLDER: Final = "documents"
FILE_ACCESS_KEY_ID: Final = f"{DOCUMENTS_FOLDER}/{KEY_ACCESS_KEY_ID}"
FILE_SECRET_ACCESS_KEY: Final = f"{DOCUMENTS_FOLDER}/{KEY_SECRET_ACCESS_KEY}"
FILE_CA: Final = "ca.crt"
#: Of the one endpoint that an inference proxy stands before.
FILE_ENDPOINT_TOKEN: Final = "endpoint/token"  # noqa: S105 - a path
FILE_ENDPOINT_CA: Final = "endpoint/ca.crt"
FILE_ADMIN_USERNAME: Final = "admin/username"
FILE_ADMIN_PASSWORD: Final = "admin/password"  # noqa: S105 - a path

SCRATCH_DIR: Final = "/var/lib/chatbot"
MODELS_DIR: Final = "/models"

# Ports. The public port is the only one a person reaches.
PORT_PUBLIC: Final = 8080
PORT_INTERNAL: Final = 8081  # /livez /readyz /metrics /internal/status /health/detail
PORT_SHARD: Final = 7300
PORT_PROXY: Final = 7400
PORT_OLLAMA: Final = 11434
PORT_DATABASE: Final = 5432
PORT_STORE: Final = 7070

DATABASE_NAME: Final = "chatbot"
DATABASE_ROLE: Final = "chatbot"

# Environment of every runtime container (downward API), read by `chatbot_runtime.settings`.
ENV_POD_NAME: Final = "POD_NAME"
ENV_POD_IP: Final = "POD_IP"
ENV_NAMESPACE: Final = "POD_NAMESPACE"
ENV_PROXIES: Final = ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")
#: What the operator sets on some container: no spec may set it.
ENV_RESERVED: Final = (
    ENV_POD_NAME,
    ENV_POD_IP,
    ENV_NAMESPACE,
    *ENV_PROXIES,
    *(name.lower() for name in ENV_PROXIES),
    "HOME",
    "OLLAMA_HOST",
    "OLLAMA_MODELS",
    "OLLAMA_NUM_PARALLEL",
    "OLLAMA_CONTEXT_LENGTH",
    "OLLAMA_KEEP_ALIVE",
    "OLLAMA_MAX_LOADED_MODELS",
    "OLLAMA_NOPRUNE",
    "SSL_CERT_FILE",
)
#: The self-test and its built-in documents live in this workspace; people never see it.
SELF_TEST_WORKSPACE: Final = "_self-test"
#: Workspace of the first admin and of every user until workspaces are managed.
DEFAULT_WORKSPACE: Final = "default"
