"""One cluster and two chatbots for all tests here; files are numbered from harmless to destructive.

The cluster is taken down at the end; set CHATBOT_E2E_KEEP=1 to look at it afterwards.
"""

import os
import time
from collections.abc import Generator, Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from e2e.harness.chatbot import Chatbot
from e2e.harness.cluster import Cluster, on_cluster

from firstrun import questions
from firstrun.service import Service

SMALL: dict[str, Any] = {
    "retrieval": {"minPassages": 1, "maxPassages": 3, "storage": {"size": "500Mi"}},
    "inference": {
        "model": "smollm2:135m",
        "managed": {
            "parallelRequests": 1,
            "contextTokens": 2048,
            "options": {"maxOutputTokens": 48, "temperaturePercent": 0},
        },
    },
    "documents": {"stores": [{"name": "main", "pvc": {"size": "1Gi"}}]},
    "database": {"managed": {"size": "1Gi"}},
}
#: The operator looks after at most a minute where questions are asked.
SETTLE_S = 10.0
ONE_API_REPLICA = {"api": {"scaling": {"minReplicas": 1}}}


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    keep = os.environ.get("CHATBOT_E2E_KEEP") == "1"
    try:
        up = Cluster.up()
        up.load_images()
        up.install_operator()
        yield up
    finally:
        if not keep:
            on_cluster("down")


@pytest.fixture(scope="session")
def both(cluster: Cluster) -> tuple[Chatbot, Chatbot]:
    """Start two chatbots at the same time, in two namespaces."""
    first = Chatbot(cluster, "team-a", "assistant")
    second = Chatbot(cluster, "team-b", "assistant")
    first.apply({**SMALL, "deletionPolicy": "Delete"})
    second.apply({**SMALL, **ONE_API_REPLICA, "deletionPolicy": "Retain"})
    first.wait_ready()
    second.wait_ready()
    return first, second


@pytest.fixture(scope="session")
def chatbot(both: tuple[Chatbot, Chatbot]) -> Chatbot:
    return both[0]


@pytest.fixture(scope="session")
def neighbour(both: tuple[Chatbot, Chatbot]) -> Chatbot:
    return both[1]


@pytest.fixture(scope="session")
def service(chatbot: Chatbot) -> Service:
    """The first chatbot's service with the example documents in it, as its admin."""
    admin = chatbot.admin()
    ids = [admin.upload(path.name, path.read_bytes()) for path in questions.documents()]
    for document in ids:
        admin.wait_searchable(document, 120)
    return admin


@pytest.fixture(scope="session")
def quiet_since(service: Service) -> datetime:
    """The moment from which nobody touches the two chatbots until their idleness is judged."""
    # What was asked before is counted in the status within the next look of the operator.
    time.sleep(SETTLE_S)
    return datetime.now(UTC)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Add to every failure what a person would look at next."""
    report = yield
    if report.failed and "cluster" in getattr(item, "fixturenames", ()):
        try:
            story = Cluster().story("team-a", "team-b")
        except Exception as error:  # noqa: BLE001 - the failure itself must be shown, whatever else breaks
            story = f"no story: {error}"
        report.sections.append(("the cluster at that moment", story))
    return report
