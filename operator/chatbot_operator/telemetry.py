"""The operator's own metrics and its log lines as JSON."""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

_PLAIN: Final = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName"}
_LAG_BUCKETS_S: Final = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)


class Telemetry:
    """One registry and the metrics in it."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._count()
        self._measure()

    def _count(self) -> None:
        self.passes = Counter(
            "chatbot_operator_passes",
            "Passes over an object, by outcome: changed, quiet, gone, failed.",
            ["outcome"],
            registry=self.registry,
        )
        self.kube_calls = Counter(
            "chatbot_operator_kube_calls",
            "Answers of the API server by verb, kind and HTTP status (0 = none).",
            ["verb", "kind", "status"],
            registry=self.registry,
        )
        self.refusals = Counter(
            "chatbot_operator_refusals",
            "Steps that were held back, by the predicate's name.",
            ["name"],
            registry=self.registry,
        )

    def _measure(self) -> None:
        self.pass_seconds = Histogram(
            "chatbot_operator_pass_seconds",
            "Duration of a pass, writes included.",
            registry=self.registry,
        )
        self.objects = Gauge(
            "chatbot_operator_objects", "ChatbotClusters known.", registry=self.registry
        )
        self.waiting = Gauge(
            "chatbot_operator_queue_length", "Objects that wait for a pass.", registry=self.registry
        )
        self.leader = Gauge(
            "chatbot_operator_leader", "1 = this process leads and writes.", registry=self.registry
        )
        self.loop_lag_s = Histogram(
            "chatbot_operator_loop_lag_seconds",
            "How late the event loop ran its heartbeats.",
            registry=self.registry,
            buckets=_LAG_BUCKETS_S,
        )
        self.watch_age_s = Gauge(
            "chatbot_operator_watch_age_seconds",
            "Seconds since the watch that was silent longest was heard.",
            registry=self.registry,
        )

    def on_call(self, verb: str, kind: str, status: int) -> None:
        """Count one answer of the API server."""
        self.kube_calls.labels(verb, kind, str(status)).inc()


class JsonFormatter(logging.Formatter):
    """One line a record: time, level, logger, message, and the record's own keys."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as one JSON line."""
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        line.update({k: v for k, v in record.__dict__.items() if k not in _PLAIN})
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


def set_up_logging(level: str) -> None:
    """Send every record to standard error as JSON."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    # kopf tells every watched event and httpx every poll: no news to an operator of operators.
    for chatty in ("kopf", "httpx", "httpcore", "aiohttp.access"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
