"""Text to chunks of whole sentences, with exact offsets. Pure.

A chunk is never longer than asked for, begins at the border of a sentence or a word, stays on one
page, and a heading opens a chunk together with the text below it. Neighbours share an overlap.
"""

from __future__ import annotations

import unicodedata
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from chatbot_core.errors import Invalid
from chatbot_runtime.domain.model import Chunk, ParsedText
from chatbot_runtime.domain.sentences import Span, spans

_ZERO_WIDTH_JOINER: Final = "\u200d"


@dataclass(frozen=True, slots=True)
class _Unit:
    """A piece that is kept whole, at most one chunk long."""

    start: int
    end: int
    heading: bool
    page: int | None


def chunk(parsed: ParsedText, size_characters: int, overlap_characters: int) -> tuple[Chunk, ...]:
    """Return the chunks of a text in order; `text[start:end]` is each chunk's text.

    Sizes count characters. Raises Invalid where the size is below 1 or the overlap reaches it.
    """
    if size_characters < 1:
        raise Invalid("chunk_size_characters", size_characters, "at least 1")
    if not 0 <= overlap_characters < size_characters:
        raise Invalid("chunk_overlap_characters", overlap_characters, f"0 to {size_characters - 1}")
    units = list(_units(parsed, size_characters))
    ranges = _pack(parsed.text, units, size_characters, overlap_characters)
    return tuple(
        Chunk(ord=i, start=start, end=end, page=page, text=parsed.text[start:end])
        for i, (start, end, page) in enumerate(ranges)
    )


def _units(parsed: ParsedText, size: int) -> Iterator[_Unit]:
    starts = parsed.page_starts
    for span in spans(parsed.text):
        for part in _at_pages(span, starts):
            page = bisect_right(starts, part.start) if starts else None
            for start, end in _fit(parsed.text, part.start, part.end, size):
                yield _Unit(start, end, span.heading, page)


def _at_pages(span: Span, starts: Sequence[int]) -> list[Span]:
    inner = starts[bisect_right(starts, span.start) : bisect_left(starts, span.end)]
    borders = [span.start, *inner, span.end]
    return [Span(a, b) for a, b in pairwise(borders)]


def _fit(text: str, start: int, end: int, size: int) -> Iterator[tuple[int, int]]:
    """Cut a range at word borders into pieces of at most `size`, without white space around."""
    while True:
        while start < end and text[start].isspace():
            start += 1
        stop = end if end - start <= size else _word_border(text, start, start + size)
        last = stop
        while last > start and text[last - 1].isspace():
            last -= 1
        if last > start:
            yield start, last
        if stop >= end:
            return
        start = stop


def _word_border(text: str, start: int, limit: int) -> int:
    """Return the last border of a word at or before `limit`, else of a visible character."""
    for position in range(limit, start, -1):
        if text[position].isspace() or text[position - 1].isspace():
            return position
    for position in range(limit, start, -1):
        if not _joins(text, position):
            return position
    return limit


def _joins(text: str, position: int) -> bool:
    """Say whether a cut before `position` would tear a visible character apart."""
    return (
        unicodedata.combining(text[position]) != 0
        or unicodedata.category(text[position]) in {"Mn", "Me", "Mc"}
        or text[position] == _ZERO_WIDTH_JOINER
        or text[position - 1] == _ZERO_WIDTH_JOINER
    )


def _pack(
    text: str, units: list[_Unit], size: int, overlap: int
) -> Iterator[tuple[int, int, int | None]]:
    first = 0
    start = units[0].start if units else 0
    while first < len(units):
        after = _last_that_fits(units, first, start, size)
        end = units[after - 1].end
        yield start, end, units[first].page
        if after < len(units):
            start = _next_start(text, units, first, after, (start, size, overlap))
        first = after


def _last_that_fits(units: list[_Unit], first: int, start: int, size: int) -> int:
    """Return the index after the last unit of the chunk that begins at `start`."""
    after = first + 1
    while after < len(units) and _belongs(units[after - 1], units[after]):
        if units[after].end - start > size:
            break
        after += 1
    # A heading at the end belongs to what follows, unless the chunk holds nothing else.
    while after - 1 > first and after < len(units) and units[after - 1].heading:
        if not _belongs(units[after - 1], units[after]):
            break
        after -= 1
    return after


def _belongs(before: _Unit, unit: _Unit) -> bool:
    """Say whether two neighbours may share a chunk: one page, and no new section between them."""
    return before.page == unit.page and (before.heading or not unit.heading)


def _next_start(
    text: str, units: list[_Unit], first: int, after: int, bounds: tuple[int, int, int]
) -> int:
    """Return where the next chunk begins: in the tail of the last one, or at its own unit."""
    chunk_start, size, overlap = bounds
    unit, end = units[after], units[after - 1].end
    if overlap == 0 or not _belongs(units[after - 1], unit) or units[after - 1].heading:
        return unit.start
    earliest = max(end - overlap, unit.end - size, chunk_start + 1)
    for candidate in units[first:after]:
        if candidate.start >= earliest:
            return candidate.start
    for position in range(max(earliest, 1), end):
        if text[position - 1].isspace() and not text[position].isspace():
            return position
    return unit.start
