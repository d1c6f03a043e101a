"""Nothing changed means nothing written; under questions the status alone, once a minute."""

import time
from datetime import UTC, datetime, timedelta

import pytest
from e2e.harness.chatbot import Chatbot
from e2e.harness.cluster import Cluster, per_minute
from e2e.harness.waiting import until

from chatbot_core import names
from firstrun import questions
from firstrun.service import Service

#: Longer than the longest interval at which the operator looks by itself (60 s).
BOUNDED_S = 75.0
FULL_S = 300.0


@pytest.fixture
def window_s(request: pytest.FixtureRequest) -> float:
    return FULL_S if request.config.getoption("--all") else BOUNDED_S


def test_constant_questions_cost_at_most_one_status_write_a_minute(
    cluster: Cluster, service: Service, chatbot: Chatbot
) -> None:
    service.ask(questions.chosen().text)
    began = datetime.now(UTC)
    while datetime.now(UTC) - began < timedelta(seconds=BOUNDED_S):
        service.call("GET", "/api/search?q=lighthouse")
        service.ask(questions.chosen().text)
    window = datetime.now(UTC) - began
    writes = cluster.operator_writes(began)
    others = [write for write in writes if write.subresource != "status"]
    mine = [write for write in writes if write.name == chatbot.name]
    assert others == []
    # Both objects have the same name, so that this counts the neighbour's too.
    assert per_minute(mine, window) <= 2, mine


def test_an_idle_operator_writes_nothing_and_an_edit_in_the_last_minute_still_heals(
    cluster: Cluster, chatbot: Chatbot, window_s: float
) -> None:
    time.sleep(10)  # what the questions before have changed is in the status by now
    began = datetime.now(UTC)
    time.sleep(window_s)
    assert cluster.operator_writes(began) == []
    config = names.config_map(chatbot.name)
    chatbot.edit("configmap", config, {"data": {names.CONFIG_KEY: "{}"}})

    def whole() -> bool | None:
        return chatbot.get("configmap", config)["data"][names.CONFIG_KEY] != "{}" or None

    until("the edited ConfigMap is whole again", whole, 10)
