"""How long each stage took: Prometheus histograms, the 15-minute windows, and one request's own."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Final

from prometheus_client import Counter, Histogram

from chatbot_runtime.ports import Clock
from chatbot_runtime.services.windows import Windows

_BUCKETS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2, 4, 8, 15, 30, 60)

STAGE_SECONDS: Final = Histogram(
    "chatbot_stage_seconds", "Duration of a stage of the question or ingest path", ["stage"],
    buckets=_BUCKETS,
)  # fmt: skip
QUESTIONS: Final = Counter("chatbot_questions", "Questions by how they ended", ["outcome"])
TOKENS: Final = Counter("chatbot_tokens", "Tokens read and written by the model", ["kind"])
WALL_DROPPED: Final = Counter(
    "chatbot_wall_dropped", "Hits that the last wall dropped: deleted, replaced or foreign"
)
DOCUMENTS: Final = Counter("chatbot_documents", "Documents by how their ingest ended", ["outcome"])
CHUNKS: Final = Counter("chatbot_chunks", "Chunks embedded and written")
REQUESTS: Final = Counter(
    "chatbot_http_requests", "Requests on the public port", ["method", "route", "status"]
)


class Stages:
    """Records durations in seconds by stage; names are constants of the code, so memory is too."""

    def __init__(self, clock: Clock, windows: Windows) -> None:
        self.clock = clock
        self.windows = windows

    def record(self, stage: str, took_s: float, timings_ms: dict[str, float] | None = None) -> None:
        """Record one duration, also into a request's own timings in milliseconds."""
        STAGE_SECONDS.labels(stage).observe(took_s)
        self.windows.record(stage, took_s * 1000, self.clock.monotonic_s())
        if timings_ms is not None:
            timings_ms[stage] = round(took_s * 1000, 3)

    @contextlib.contextmanager
    def timed(self, stage: str, timings_ms: dict[str, float] | None = None) -> Iterator[None]:
        """Record how long the block took, where it ends without an error."""
        began_s = self.clock.monotonic_s()
        yield
        self.record(stage, self.clock.monotonic_s() - began_s, timings_ms)
