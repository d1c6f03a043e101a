"""Where sentences, headings and words begin and end. Pure and linear in the text's length."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from typing import Final

# A run of end marks is matched from its first mark only, so that "....." costs one step a mark.
_BREAK: Final = re.compile(
    r"(?<![.!?…])[.!?…]++[\"'”\u2019»)\]]*+\s++"  # the end of a sentence
    r"|[。\uff01\uff1f]++"  # scripts without spaces between sentences
    r"|\n[^\S\n]*+\n\s*+"  # a blank line
    r"|\n(?=[^\S\n]{0,8}(?:[-*+•|]|\d{1,3}[.)])[^\S\n])"  # a list item or a table row
)
_MARKDOWN_HEADING: Final = re.compile(r"^[^\S\n]{0,3}#{1,6}[^\S\n]+\S[^\n]*$", re.MULTILINE)
_PLAIN_HEADING: Final = re.compile(r"(?:\A|(?<=\n\n))[^\s#|>*-][^\n]{0,78}[^\s.,;:!?](?=\n\n)")
_ABBREVIATION: Final = re.compile(
    r"(?:^|[\s(])(?:[A-Za-z]|Dr|Mr|Mrs|Ms|Prof|St|No|Nr|vs|etc|e\.g|i\.e|approx|Inc|Ltd|Co)\.\s$"
)
_WORD: Final = re.compile(r"[^\W_]+(?:['\u2019.-][^\W_]+)*")

#: Longest abbreviation with its border, in characters: what is looked at before a full stop.
_LOOK_BACK: Final = 12


@dataclass(frozen=True, slots=True)
class Span:
    """A half-open range of characters without white space at its ends."""

    start: int
    end: int
    heading: bool = False


def spans(text: str) -> list[Span]:
    """Return headings and sentences in order; together they hold every visible character."""
    found: list[Span] = []
    position = 0
    for start, end in _headings(text):
        found += _sentences(text, position, start)
        found.append(Span(start, end, heading=True))
        position = end
    return found + _sentences(text, position, len(text))


def words(text: str) -> list[str]:
    """Return the words of a text, case-folded and with compatibility forms unified."""
    return _WORD.findall(unicodedata.normalize("NFKC", text).casefold())


def stems(text: str) -> list[str]:
    """Return content words cut to a crude English stem: enough to match `returns` and `return`."""
    return [_stem(word) for word in words(text) if word not in STOP_WORDS]


STOP_WORDS: Final = frozenset(
    """a about am an and any are as at be been being but by can could did do does doing for from
    had has have how i if in into is it its many may me much my of on or our please shall she he
    should so tell than that the their them then there these they this to was we were what when
    where which who whom whose why will with would you your""".split()  # noqa: SIM905 - sixty lines otherwise
)


def _stem(word: str) -> str:
    for suffix, keep in (
        ("ies", "y"),
        ("sses", "ss"),
        ("ing", ""),
        ("ed", ""),
        ("es", ""),
        ("s", ""),
        ("e", ""),
    ):
        if word.endswith(suffix) and len(word) - len(suffix) >= 3:  # noqa: PLR2004 - shortest stem
            return word.removesuffix(suffix) + keep
    return word


def _headings(text: str) -> list[tuple[int, int]]:
    ranges = {match.span() for match in _MARKDOWN_HEADING.finditer(text)}
    ranges |= {match.span() for match in _PLAIN_HEADING.finditer(text)}
    trimmed = (_trim(text, start, end) for start, end in sorted(ranges))
    result: list[tuple[int, int]] = []
    for span in trimmed:
        if span is not None and (not result or span[0] >= result[-1][1]):
            result.append(span)
    return result


def _sentences(text: str, start: int, end: int) -> list[Span]:
    found: list[Span] = []
    position = start
    for match in _BREAK.finditer(text, start, end):
        if _ABBREVIATION.search(text[max(position, match.end() - _LOOK_BACK) : match.end()]):
            continue
        trimmed = _trim(text, position, match.end())
        if trimmed is not None:
            found.append(Span(*trimmed))
        position = match.end()
    trimmed = _trim(text, position, end)
    return found if trimmed is None else [*found, Span(*trimmed)]


def _trim(text: str, start: int, end: int) -> tuple[int, int] | None:
    while start < end and text[start].isspace():
        start += 1
    while end > start and text[end - 1].isspace():
        end -= 1
    return (start, end) if start < end else None
