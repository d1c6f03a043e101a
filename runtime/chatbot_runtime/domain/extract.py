"""An answer without a model: the sentences that say most about the question, cited. Pure."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from chatbot_runtime.domain.model import Passage
from chatbot_runtime.domain.sentences import spans, stems

#: Least share of the question's content words, by weight, that a sentence must hold.
MIN_SHARE: Final = 0.34
MAX_SENTENCES: Final = 2
#: How much the passage's own similarity counts beside the sentence's words.
_PASSAGE_WEIGHT: Final = 0.5
#: Share of the best sentence's score that a second one must reach.
_SECOND_SHARE: Final = 0.8


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
