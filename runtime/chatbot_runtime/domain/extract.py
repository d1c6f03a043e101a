"""The sentences that say most about a question: an answer without a model, or its hint. Pure."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from chatbot_runtime.domain.model import Passage
from chatbot_runtime.domain.sentences import spans, stems

if TYPE_CHECKING:  # numpy takes 0.2 s to import; processes without vectors do without
    import numpy as np
    from numpy.typing import NDArray

#: Least share of the question's content words, by weight, that a sentence must hold.
MIN_SHARE: Final = 0.34
MAX_SENTENCES: Final = 2
#: How much the passage's own similarity counts beside the sentence's words.
_PASSAGE_WEIGHT: Final = 0.5
#: Share of the best sentence's score that a second one must reach.
_SECOND_SHARE: Final = 0.8
#: Sentences that are compared with a question by meaning, at most: what one question may cost.
MAX_COMPARED: Final = 32
#: How much a sentence's words count beside its similarity by meaning.
_WORDS_WEIGHT: Final = 0.5


@dataclass(frozen=True, slots=True)
class Sentence:
    """A sentence without line breaks, and the number of its passage, counted from 1."""

    n: int
    text: str


@dataclass(frozen=True, slots=True)
class Extracted:
    """The answer's text with markers, and the numbers of the passages it quotes."""

    text: str
    numbers: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class _Candidate:
    score: float
    n: int
    start: int
    text: str


def extract(question: str, passages: Sequence[Passage]) -> Extracted | None:
    """Return the best sentences with markers, or None where no sentence speaks of the question.

    A word weighs by how rare it is among the passages (the IDF of Robertson and Sparck Jones).
    """
    weights = _weights(question, passages)
    total = sum(weights.values())
    if total == 0:
        return None
    found: list[_Candidate] = []
    for n, passage in enumerate(passages, start=1):
        for span in (s for s in spans(passage.text) if not s.heading):
            text = " ".join(passage.text[span.start : span.end].split())
            share = sum(weights.get(word, 0.0) for word in set(stems(text))) / total
            if share >= MIN_SHARE:
                found.append(
                    _Candidate(share + _PASSAGE_WEIGHT * passage.score, n, span.start, text)
                )
    return _answer(sorted(found, key=lambda c: (-c.score, c.n, c.start)))


def sentences(passages: Sequence[Passage]) -> tuple[Sentence, ...]:
    """Return the first MAX_COMPARED sentences of the passages in order, without headings."""
    found = [
        Sentence(n, " ".join(passage.text[span.start : span.end].split()))
        for n, passage in enumerate(passages, start=1)
        for span in spans(passage.text)
        if not span.heading
    ]
    return tuple(found[:MAX_COMPARED])


def ranked(
    question: str,
    found: Sequence[Sentence],
    vectors: NDArray[np.float32],
    passages: Sequence[Passage],
) -> tuple[Sentence, ...]:
    """Return sentences best first, by similarity and by the share of the question's words.

    `vectors` are unit vectors, shape (1 + sentences, dimension), the question's first. A sentence
    counts half by itself and half together with the one before it in its passage: "Below that
    amount it costs 6 euros." says little without the amount. Words weigh by how rare they are
    among `passages`, as in `extract`. The earlier of two equal sentences comes first.
    """
    weights = _weights(question, passages)
    total = sum(weights.values()) or 1.0
    asked, own = vectors[0], vectors[1:]

    def score(text: str, vector: NDArray[np.float32]) -> float:
        share = sum(weights.get(word, 0.0) for word in set(stems(text))) / total
        alike = float(vector @ asked) / math.sqrt(float(vector @ vector))
        return _WORDS_WEIGHT * share + alike

    scores = [score(one.text, vector) for one, vector in zip(found, own, strict=True)]
    for i in range(len(found)):
        before = found[i - 1] if i else None
        if before is None or before.n != found[i].n:
            scores[i] += score(found[i].text, own[i])
        else:
            scores[i] += score(f"{before.text} {found[i].text}", own[i - 1] + own[i])
    return tuple(found[i] for i in sorted(range(len(found)), key=lambda i: (-scores[i], i)))


def _weights(question: str, passages: Sequence[Passage]) -> dict[str, float]:
    counts = Counter(word for passage in passages for word in set(stems(passage.text)))
    return {
        word: math.log(1 + (len(passages) - counts[word] + 0.5) / (counts[word] + 0.5))
        for word in set(stems(question))
    }


def _answer(ranked: Sequence[_Candidate]) -> Extracted | None:
    chosen: list[_Candidate] = []
    for candidate in ranked:
        if len(chosen) == MAX_SENTENCES or candidate.score < ranked[0].score * _SECOND_SHARE:
            break
        if all(candidate.text not in c.text and c.text not in candidate.text for c in chosen):
            chosen.append(candidate)
    if not chosen:
        return None
    text = " ".join(f"{candidate.text} [{candidate.n}]" for candidate in chosen)
    return Extracted(text, tuple(dict.fromkeys(candidate.n for candidate in chosen)))
