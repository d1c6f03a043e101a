"""Nothing changed means nothing written."""

import time
from datetime import UTC, datetime, timedelta

from e2e.harness.chatbot import Chatbot
from e2e.harness.cluster import Cluster
from e2e.harness.waiting import until

from chatbot_core import names

IDLE = timedelta(minutes=5)


def test_an_idle_operator_writes_nothing_and_an_edit_in_the_last_minute_still_heals(
    cluster: Cluster, chatbot: Chatbot, quiet_since: datetime
) -> None:
    left = quiet_since + IDLE - datetime.now(UTC)
    time.sleep(max(left.total_seconds(), 0))
    assert cluster.operator_writes(quiet_since) == []

    config = names.config_map(chatbot.name)
    chatbot.edit("configmap", config, {"data": {names.CONFIG_KEY: "{}"}})

    def whole() -> bool | None:
        return chatbot.get("configmap", config)["data"][names.CONFIG_KEY] != "{}" or None

    until("the edited ConfigMap is whole again", whole, 10)
    healing = cluster.operator_writes(quiet_since)
    assert {(write.resource, write.name) for write in healing} >= {("configmaps", config)}
