"""What Ollama does not export itself: queue, first token, tokens per second, load time."""

from __future__ import annotations

from typing import Final

from prometheus_client import Counter, Gauge, Histogram

OUTCOMES: Final = frozenset({"stop", "length", "deadline", "failed", "refused"})

QUEUE_DEPTH = Gauge("chatbot_inference_queue_depth", "Requests that wait for a slot")
IN_FLIGHT = Gauge("chatbot_inference_in_flight", "Slots that the model server holds")
QUEUE_WAIT = Histogram(
    "chatbot_inference_queue_wait_seconds",
    "Wait for a slot",
    buckets=(0.001, 0.01, 0.1, 0.5, 1, 2, 5, 10, 20, 30, 60),
)
FIRST_TOKEN = Histogram(
    "chatbot_inference_first_token_seconds",
    "Slot to first token",
    buckets=(0.05, 0.1, 0.25, 0.5, 1, 2, 5, 10, 20, 30, 60),
)
TOKENS_PER_SECOND = Histogram(
    "chatbot_inference_tokens_per_second",
    "Decoding speed of one answer after its first token",
    buckets=(1, 2, 5, 10, 20, 30, 50, 75, 100, 150, 200),
)
LOAD = Gauge("chatbot_inference_model_load_seconds", "How long the last load of the model took")
ANSWERS = Counter(
    "chatbot_inference_answers", "Answers by outcome: how they ended, or refused", ["outcome"]
)
