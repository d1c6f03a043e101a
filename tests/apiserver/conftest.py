"""One real etcd, kube-apiserver and kube-controller-manager for all tests of this layer.

The operator runs in the test's own loop, as its ServiceAccount with the rights of
`deploy/operator.yaml`; the audit log says what it wrote. There is no kubelet: pods stay pending.
"""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest
import yaml
from fakes.apiserver import Admin, Running, StartOperator, new_namespace
from fakes.objects import SETTINGS
from fakes.runtime import FakeRuntime

from chatbot_core import names
from chatbot_operator.kinds import collection_path
from chatbot_operator.kube import KubeClient, connect
from chatbot_operator.main import Operator, Process
from chatbot_operator.plan import plan
from chatbot_operator.telemetry import Telemetry
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
    "Deployment": "/apis/apps/v1/namespaces/chatbot-system/deployments",
}


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LoopbackServer]:
    running = testserver.start(
        tmp_path_factory.mktemp("operator") / "state", with_controller_manager=True
    )
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


@pytest.fixture(scope="session")
def operator_kubeconfig(server: LoopbackServer) -> Path:
    """Credentials of the operator's ServiceAccount: a wrong right fails the tests."""
    path = f"{_PATHS['ServiceAccount']}/chatbot-operator/token"
    ask = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}}
    status, body = server.api.request("POST", path, ask)
    assert status == 201, body
    config = json.loads(server.kubeconfig.read_text())
    config["users"][0]["user"] = {"token": json.loads(body)["status"]["token"]}
    target = server.plane.state / "operator.kubeconfig"
    target.write_text(json.dumps(config))
    return target


@pytest.fixture
def namespace(server: LoopbackServer) -> str:
    """A fresh namespace; nobody else's objects are in it."""
    return new_namespace(server)


@pytest.fixture
async def kube(
    server: LoopbackServer, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[KubeClient]:
    """The operator's own client, as the administrator."""
    monkeypatch.setenv("KUBECONFIG", str(server.kubeconfig))
    connected = await connect(user_agent="a-test")
    try:
        yield connected
    finally:
        await connected.close()


@pytest.fixture
async def admin(server: LoopbackServer) -> AsyncIterator[Admin]:
    pem = server.certificates
    context = ssl.create_default_context(cafile=pem / "ca.crt")
    context.load_cert_chain(pem / "admin.crt", pem / "admin.key")
    async with httpx.AsyncClient(
        base_url=server.url, verify=context, timeout=30, trust_env=False
    ) as http:
        yield Admin(http)


@pytest.fixture
def start_operator(
    server: LoopbackServer, operator_kubeconfig: Path, monkeypatch: pytest.MonkeyPatch
) -> StartOperator:
    """Return a context manager that runs an operator for the named namespaces."""

    @asynccontextmanager
    async def start(*namespaces: str) -> AsyncIterator[Running]:
        monkeypatch.setenv("KUBECONFIG", str(operator_kubeconfig))
        telemetry, runtime, stop = Telemetry(), FakeRuntime(), asyncio.Event()
        kube = await connect(telemetry.on_call)
        process = Process(SETTINGS, namespaces, port=0)
        operator = Operator(process, kube, runtime, plan, telemetry)
        life = asyncio.create_task(operator.run(stop))
        running = Running(operator, runtime, server, namespaces)
        running.forget_writes()
        try:
            async with asyncio.timeout(30):
                await operator.world.until_complete()
            yield running
        finally:
            stop.set()
            await life
            await kube.close()

    return start
