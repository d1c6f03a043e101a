"""A test server that knows ChatbotClusters, and the operator's credentials there."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from pathlib import Path

import yaml

from chatbot_core import names
from chatbot_operator.kinds import collection_path
from localkube import testserver
from localkube.api import wait_until
from localkube.testserver import LoopbackServer

ROOT = Path(__file__).resolve().parents[2]
CRD = yaml.safe_load((ROOT / "crds" / "chatbot.i4c.io_chatbotclusters.yaml").read_text())
DEPLOY = [one for one in yaml.safe_load_all((ROOT / "deploy" / "operator.yaml").read_text()) if one]
_RBAC = "/apis/rbac.authorization.k8s.io/v1"
_PATHS = {
    "Namespace": "/api/v1/namespaces",
    "ServiceAccount": "/api/v1/namespaces/chatbot-system/serviceaccounts",
    "ClusterRole": f"{_RBAC}/clusterroles",
    "ClusterRoleBinding": f"{_RBAC}/clusterrolebindings",
    "Lease": "/apis/coordination.k8s.io/v1/namespaces/chatbot-system/leases",
    "Role": f"{_RBAC}/namespaces/chatbot-system/roles",
    "RoleBinding": f"{_RBAC}/namespaces/chatbot-system/rolebindings",
    "PodDisruptionBudget": "/apis/policy/v1/namespaces/chatbot-system/poddisruptionbudgets",
    "Deployment": "/apis/apps/v1/namespaces/chatbot-system/deployments",
}


@contextmanager
def control_plane(state: Path) -> Iterator[LoopbackServer]:
    """Start the servers with the CRD and the rights of `deploy/operator.yaml`."""
    running = testserver.start(state, with_controller_manager=True)
    try:
        crds = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
        running.api.create(crds, CRD)
        for one in DEPLOY:
            running.api.create(_PATHS[one["kind"]], one)
        served = collection_path(names.KIND, "")
        wait_until(lambda: running.api.get(served) is not None, "the CRD", 30, lambda: None)
        yield running
    finally:
        running.stop()


def write_operator_kubeconfig(server: LoopbackServer) -> Path:
    """Write credentials of the operator's ServiceAccount: a wrong right fails the tests."""
    path = f"{_PATHS['ServiceAccount']}/chatbot-operator/token"
    ask = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}}
    status, body = server.api.request("POST", path, ask)
    assert status == HTTPStatus.CREATED, body
    config = json.loads(server.kubeconfig.read_text())
    config["users"][0]["user"] = {"token": json.loads(body)["status"]["token"]}
    target = server.plane.state / "operator.kubeconfig"
    target.write_text(json.dumps(config))
    return target
