"""ChatbotClusters that tests apply."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

from chatbot_core import names
from chatbot_operator.kinds import Object, Ref
from chatbot_operator.model import OperatorSettings

SETTINGS = OperatorSettings(
    runtime_image="localhost/chatbot-runtime:test",
    runtime_version="0.1.0",
    database_image="localhost/chatbot-postgres:test",
    store_image="localhost/chatbot-store:test",
    ollama_image="localhost/chatbot-ollama:test",
)

SPEC: dict[str, Any] = {
    "inference": {"model": "smollm2:135m"},
    "retrieval": {"shards": 2},
    "documents": {"stores": [{"name": "main", "pvc": {"size": "1Gi"}}]},
    "database": {"managed": {"size": "1Gi"}},
}


def cluster(namespace: str, name: str = "chat", **spec: Any) -> Object:
    return {
        "apiVersion": names.API_VERSION,
        "kind": names.KIND,
        "metadata": {"name": name, "namespace": namespace},
        "spec": {**deepcopy(SPEC), **spec},
    }


def cluster_ref(namespace: str, name: str = "chat") -> Ref:
    return Ref(names.KIND, namespace, name)
