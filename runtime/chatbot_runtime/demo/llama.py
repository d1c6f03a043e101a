"""One GGUF model in this process, through llama.cpp (xllamacpp); blocking calls, run in threads.

The chat template and its stop tokens are those of the GGUF file. One thread: llama.cpp's threads
spin, and on a busy machine a second one was measured to be slower than none.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import xllamacpp

from chatbot_core.errors import Unavailable


@dataclass(frozen=True, slots=True)
class ChatOptions:
    """How to answer."""

    temperature: float
    max_tokens: int
    seed: int


@dataclass(frozen=True, slots=True)
class Usage:
    """What an answer cost, as llama.cpp counts it."""

    reason: str
    prompt_tokens: int
    answer_tokens: int
    prompt_ms: float
    answer_ms: float


class Llama:
    """A loaded model."""

    def __init__(self, file: Path, context_tokens: int) -> None:
        """Load the file. Raises Unavailable where llama.cpp cannot."""
        params = xllamacpp.CommonParams()
        params.model.path = str(file)
        params.n_ctx = context_tokens
        params.n_parallel = 1
        params.cpuparams.n_threads = 1
        params.cpuparams_batch.n_threads = 1
        params.warmup = False
        params.ui = False
        params.verbosity = 0
        try:
            self._server = xllamacpp.Server(params)
        except RuntimeError as error:
            raise Unavailable(f"model file {file}", str(error)) from error

    def chat(
        self,
        messages: Sequence[dict[str, str]],
        options: ChatOptions,
        on_text: Callable[[str], bool],
    ) -> Usage:
        """Answer; `on_text` gets every piece and stops the model by returning True.

        Raises Unavailable for a prompt that llama.cpp refuses.
        """
        chunks = _Chunks(on_text)
        request = {
            "messages": list(messages),
            "stream": True,
            "stream_options": {"include_usage": True},
            "temperature": options.temperature,
            "max_tokens": options.max_tokens,
            "seed": options.seed,
        }
        self._server.handle_chat_completions(request, chunks.take)
        return chunks.usage()


class _Chunks:
    """The stream of one answer, in the form of OpenAI's chat completion chunks."""

    def __init__(self, on_text: Callable[[str], bool]) -> None:
        self._on_text = on_text
        self._failure = ""
        self._reason = "stop"
        self._last: dict[str, Any] = {}

    def take(self, chunk: dict[str, Any]) -> bool:
        """Take the next chunk; True ends the answer."""
        if "choices" not in chunk:
            self._failure = str(chunk.get("message") or chunk.get("error") or chunk)
            return True
        self._last = chunk
        for choice in chunk["choices"]:
            self._reason = choice.get("finish_reason") or self._reason
            text = (choice.get("delta") or {}).get("content")
            if text and self._on_text(text):
                self._reason = "canceled"
                return True
        return False

    def usage(self) -> Usage:
        """Return what stands in the last chunk. Raises Unavailable where there was a refusal."""
        if self._failure:
            raise Unavailable("model", self._failure[:200])
        timings, usage = self._last.get("timings") or {}, self._last.get("usage") or {}
        return Usage(
            reason=self._reason,
            prompt_tokens=int(usage.get("prompt_tokens", 0)),
            answer_tokens=int(usage.get("completion_tokens", 0)),
            prompt_ms=float(timings.get("prompt_ms", 0.0)),
            answer_ms=float(timings.get("predicted_ms", 0.0)),
        )


def digest(file: Path) -> str:
    """Return the SHA-256 of a model file in hex."""
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()
