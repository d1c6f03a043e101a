"""People who ask all the time cost the API server next to nothing."""

from datetime import UTC, datetime, timedelta
from itertools import pairwise

from e2e.harness.chatbot import Chatbot
from e2e.harness.cluster import Cluster

from firstrun import questions
from firstrun.service import Service

#: Longer than the longest interval at which the operator looks by itself (60 s).
WINDOW = timedelta(seconds=75)
#: What a clock read on two sides may differ by.
SLACK = timedelta(seconds=1)


def test_constant_questions_cost_at_most_one_status_write_a_minute(
    cluster: Cluster, service: Service, chatbot: Chatbot
) -> None:
    began = datetime.now(UTC)
    while datetime.now(UTC) - began < WINDOW:
        service.call("GET", "/api/search?q=warranty")
        service.ask(questions.chosen().text)
    writes = cluster.operator_writes(began)
    assert [write for write in writes if write.subresource != "status"] == []
    moments = [write.at for write in writes if write.namespace == chatbot.namespace]
    gaps = [later - earlier for earlier, later in pairwise(moments)]
    assert all(gap > timedelta(minutes=1) - SLACK for gap in gaps), writes
