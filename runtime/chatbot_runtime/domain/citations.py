"""Which passages an answer points to: markers checked, support measured. Pure.

A number in a marker is the passage's place in the prompt, in the stream and in the final answer.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from chatbot_runtime.domain.model import Citation, Passage
from chatbot_runtime.domain.sentences import stems

_MARKER: Final = re.compile(r"\[(\d+(?:, ?\d+)*)\]")
_MARKER_BEGUN: Final = re.compile(r"\[[\d, ]*\Z")
_LONGEST_MARKER: Final = 64

#: Share of an answer's content words that a passage must hold to be cited without a marker.
MIN_SUPPORT: Final = 0.5
#: Passages cited without a marker, at most.
MAX_SUPPORTING: Final = 3
_NUMBER_WEIGHT: Final = 3.0


@dataclass(slots=True)
class MarkerFilter:
    """Takes an answer in pieces and gives it back without markers that point nowhere.

    `count` passages may be cited; `cited` collects the valid numbers in order of appearance.
    Text that may still become a marker is held back until it is decided; `_open` is what was shown
    of one that is not closed.
    """

    count: int
    cited: list[int] = field(default_factory=list)
    _held: str = ""
    _open: str = ""

    def feed(self, piece: str) -> str:
        """Return what may be shown after this piece."""
        self._held += piece
        shown = []
        while self._held:
            at = self._held.find("[")
            if at != 0:
                shown.append(self._show(self._held if at < 0 else self._held[:at]))
                self._held = "" if at < 0 else self._held[at:]
                continue
            if _MARKER_BEGUN.match(self._held) and len(self._held) <= _LONGEST_MARKER:
                break
            shown.append(self._decided())
        return "".join(shown)

    def end(self) -> str:
        """Return what is still held back: it did not become a marker."""
        held, self._held = self._held, ""
        return self._show(held)

    def _decided(self) -> str:
        match = _MARKER.match(self._held)
        if match is None:
            # Too long to be a citation: a round bracket cannot be taken for one.
            begun = _MARKER_BEGUN.match(self._held[: _LONGEST_MARKER + 1])
            self._held = self._held[1:]
            return self._show("(" if begun else "[")
        self._held = self._held[match.end() :]
        numbers = [int(n) for n in match.group(1).split(",")]
        valid = [n for n in numbers if 1 <= n <= self.count]
        self.cited += [n for n in valid if n not in self.cited]
        # Nothing may close up into a new marker where one was taken out; none holds two spaces.
        gap = "  " if not valid and self._open else ""
        return self._show("".join(f"[{n}]" for n in valid) + gap)

    def _show(self, text: str) -> str:
        begun = _MARKER_BEGUN.search(self._open + text)
        self._open = begun.group() if begun else ""
        return text


class FenceFilter:
    """Takes an answer in pieces and gives it back without the tags that fence the passages.

    A small model may repeat them. Text that may still become a tag is held back.
    """

    def __init__(self, fence: str) -> None:
        """`fence` is the word of the tags, at least one letter."""
        self._tag = re.compile(f"(?:</?)?{re.escape(fence)}>?")
        self._forms = (f"<{fence}>", f"</{fence}>", f"{fence}>")
        self._held = ""

    def feed(self, piece: str) -> str:
        """Return what may be shown after this piece."""
        self._held += piece
        shown = []
        while match := self._tag.search(self._held):
            shown.append(self._held[: match.start()])
            if match.end() == len(self._held) and not match.group().endswith(">"):
                self._held = match.group()
                return "".join(shown)
            self._held = self._held[match.end() :]
        kept = self._begun()
        shown.append(self._held[: len(self._held) - kept])
        self._held = self._held[len(self._held) - kept :]
        return "".join(shown)

    def end(self) -> str:
        """Return what is still held back, unless it is a tag."""
        held, self._held = self._held, ""
        return self._tag.sub("", held)

    def _begun(self) -> int:
        """Return how many characters at the end may be the beginning of a tag."""
        longest = min(len(self._held), max(map(len, self._forms)) - 1)
        return next(
            (
                length
                for length in range(longest, 0, -1)
                if any(form.startswith(self._held[-length:]) for form in self._forms)
            ),
            0,
        )


def numbered(passages: Sequence[Passage]) -> tuple[Citation, ...]:
    """Return the citation of every passage, counted from 1."""
    return tuple(
        Citation(
            n=n,
            document_id=passage.doc_id,
            name=passage.name,
            page=passage.page,
            start=passage.start,
            end=passage.end,
            text=passage.text,
        )
        for n, passage in enumerate(passages, start=1)
    )


def support(answer: str, passage: str) -> float:
    """Return the share, 0.0 to 1.0, of the answer's content words that the passage holds.

    Numbers weigh more: they carry the facts.
    """
    wanted = set(stems(answer))
    held = set(stems(passage))
    total = sum(map(_weight, wanted))
    return sum(_weight(word) for word in wanted & held) / total if total else 0.0


def cited(answer: str, passages: Sequence[Passage], marked: Sequence[int]) -> tuple[Citation, ...]:
    """Return the citations of a finished answer, best supporting passage first.

    `marked` are the numbers that the answer itself names; passages that hold most of what the
    answer says join them. Where none does, the one that holds most stands alone, if any.
    """
    shares = {n: support(answer, p.text) for n, p in enumerate(passages, start=1)}
    ranked = sorted(shares, key=lambda n: (-shares[n], n))
    best = shares[ranked[0]] if ranked else 0.0
    chosen = [n for n in ranked if shares[n] >= max(MIN_SUPPORT, best * 0.8)][:MAX_SUPPORTING]
    if not chosen and not marked and best > 0:
        chosen = ranked[:1]
    all_citations = numbered(passages)
    return tuple(all_citations[n - 1] for n in ranked if n in chosen or n in marked)


def _weight(word: str) -> float:
    return _NUMBER_WEIGHT if any(character.isdigit() for character in word) else 1.0
