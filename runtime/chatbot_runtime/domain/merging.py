"""Hits to the passages worth reading: order, no doubles, as many as the scores justify. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from chatbot_runtime.domain.model import Hit, Passage

#: Hits asked for beyond the wanted number: what the last wall drops is replaced from these.
MARGIN: Final = 10

#: A passage this far below the best one's similarity ends the list (measured on MiniLM: passages
#: of the answering section stay above 0.75 of the best).
DROP_SHARE: Final = 0.75

#: A model reads the passages this near to the best one's similarity: small models take facts from
#: whatever else stands before the question (SmolLM2-135M: 9 of 10 right with the leading passage
#: alone, 6 of 10 with three).
LEADING_SHARE: Final = 0.85

#: Least inner product of question and best passage that counts as evidence. MiniLM gives unrelated
#: English text 0.0 to 0.2 and passages that answer a question 0.4 to 0.8.
MIN_EVIDENCE: Final = 0.30


def ordered(hits: Iterable[Hit]) -> tuple[Hit, ...]:
    """Return hits best first, each chunk once with its best score, only its newest version."""
    best: dict[tuple[int, int], Hit] = {}
    for hit in hits:
        key = (hit.doc_no, hit.ord)
        known = best.get(key)
        if known is None or (hit.ver, hit.score) > (known.ver, known.score):
            best[key] = hit
    return tuple(sorted(best.values(), key=lambda hit: (-hit.score, hit.doc_no, hit.ord)))


def distinct(passages: Iterable[Passage]) -> tuple[Passage, ...]:
    """Return passages in order without repeated texts: the same words in two files say no more."""
    seen: set[str] = set()
    kept = []
    for passage in passages:
        text = " ".join(passage.text.split())
        if text not in seen:
            seen.add(text)
            kept.append(passage)
    return tuple(kept)


def adaptive(passages: Sequence[Passage], least: int, most: int) -> tuple[Passage, ...]:
    """Return between `least` and `most` best passages, ending at the first clear drop in score."""
    if not passages:
        return ()
    floor = passages[0].score * DROP_SHARE
    kept = list(passages[: max(1, least)])
    for passage in passages[len(kept) : most]:
        if passage.score < floor:
            break
        kept.append(passage)
    return tuple(kept[: max(1, most)])


def leading(passages: Sequence[Passage]) -> tuple[Passage, ...]:
    """Return the passages that are level with the best one: what a model is shown."""
    floor = passages[0].score * LEADING_SHARE if passages else 0.0
    return tuple(passage for passage in passages if passage.score >= floor)


def enough_evidence(passages: Sequence[Passage]) -> bool:
    """Say whether the best passage is near enough to the question to answer from it."""
    return bool(passages) and passages[0].score >= MIN_EVIDENCE
