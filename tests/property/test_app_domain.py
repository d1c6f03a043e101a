"""What must hold for every text, hit list and stream of tokens."""

from __future__ import annotations

import itertools
import re

from hypothesis import example, given, settings
from hypothesis import strategies as st

from chatbot_runtime.domain.chunking import chunk
from chatbot_runtime.domain.citations import FenceFilter, MarkerFilter
from chatbot_runtime.domain.merging import adaptive, ordered
from chatbot_runtime.domain.model import Hit, ParsedText, Passage
from chatbot_runtime.domain.sentences import spans

TEXT = st.one_of(
    st.text(max_size=400),
    st.text(alphabet="ab. \n#!?\u0301\u200d👩é中。0-", max_size=400),
    st.lists(
        st.sampled_from(
            [
                "# Title\n",
                "A sentence. ",
                "Dr. No said so! ",
                "\n\n",
                "- item\n",
                "x" * 70,
                "Short\n\n",
            ]
        ),
        max_size=30,
    ).map("".join),
)


@st.composite
def parsed_texts(draw: st.DrawFn) -> ParsedText:
    text = draw(TEXT)
    starts = draw(st.lists(st.integers(0, max(0, len(text))), max_size=4))
    return ParsedText(text, tuple(sorted({0, *starts})) if starts else ())


def passage(n: int, score: float) -> Passage:
    return Passage(n, f"d{n}", 1, 0, f"{n}.txt", None, 0, 1, f"text {n}", score)


@given(parsed_texts(), st.integers(1, 120), st.data())
@settings(max_examples=300)
def test_chunks_are_exact_bounded_and_hold_every_visible_character(
    parsed: ParsedText, size: int, data: st.DataObject
) -> None:
    overlap = data.draw(st.integers(0, size - 1))

    chunks = chunk(parsed, size, overlap)

    covered: set[int] = set()
    for number, piece in enumerate(chunks):
        assert piece.ord == number
        assert piece.text == parsed.text[piece.start : piece.end]
        assert 1 <= len(piece.text) <= size
        assert piece.text == piece.text.strip()
        covered |= set(range(piece.start, piece.end))
    visible = {i for i, character in enumerate(parsed.text) if not character.isspace()}
    assert visible <= covered
    assert [c.start for c in chunks] == sorted({c.start for c in chunks})
    assert [c.end for c in chunks] == sorted({c.end for c in chunks})


@given(parsed_texts(), st.integers(1, 120), st.data())
@settings(max_examples=200)
def test_a_chunk_stays_on_its_page_and_overlaps_no_more_than_asked(
    parsed: ParsedText, size: int, data: st.DataObject
) -> None:
    overlap = data.draw(st.integers(0, size - 1))

    chunks = chunk(parsed, size, overlap)

    for piece in chunks:
        if not parsed.page_starts:
            assert piece.page is None
            continue
        assert piece.page is not None
        ends = [*parsed.page_starts, len(parsed.text) + 1]
        assert ends[piece.page - 1] <= piece.start
        assert piece.end <= ends[piece.page]
    for before, after in itertools.pairwise(chunks):
        assert before.end - after.start <= overlap


@given(TEXT)
@settings(max_examples=200)
def test_sentences_hold_every_visible_character_once(text: str) -> None:
    found = spans(text)

    covered = [i for span in found for i in range(span.start, span.end)]
    assert covered == sorted(set(covered))
    assert {i for i, c in enumerate(text) if not c.isspace()} <= set(covered)


@given(
    st.text(alphabet="[]0123456789, a\u0664", max_size=80),
    st.lists(st.integers(0, 80), max_size=20),
    st.integers(0, 9),
)
@settings(max_examples=500)
@example("[0[0]]", [], 0)
@example("[1,[9]2]", [], 1)
def test_no_split_of_a_stream_shows_a_marker_that_points_nowhere(
    answer: str, cuts: list[int], count: int
) -> None:
    borders = [0, *sorted({min(cut, len(answer)) for cut in cuts}), len(answer)]
    markers = MarkerFilter(count)

    pieces = [markers.feed(answer[a:b]) for a, b in itertools.pairwise(borders)]
    shown = "".join(pieces) + markers.end()

    for numbers in re.findall(r"\[(\d+(?:, ?\d+)*)\]", shown):
        assert all(1 <= int(n) <= count for n in numbers.split(","))
    whole = MarkerFilter(count)
    assert shown == whole.feed(answer) + whole.end()
    assert markers.cited == whole.cited


@given(st.text(alphabet="<>/gh ", max_size=40), st.lists(st.integers(0, 40)))
def test_fences_vanish_however_the_answer_is_cut(answer: str, cuts: list[int]) -> None:
    borders = sorted({0, len(answer), *(cut for cut in cuts if cut < len(answer))})
    fences, whole = FenceFilter("gh"), FenceFilter("gh")

    pieces = [fences.feed(answer[a:b]) for a, b in itertools.pairwise(borders)]

    assert "".join(pieces) + fences.end() == whole.feed(answer) + whole.end()


HITS = st.lists(
    st.builds(
        Hit,
        doc_no=st.integers(1, 4),
        ver=st.integers(1, 2),
        ord=st.integers(0, 3),
        score=st.sampled_from([0.1, 0.5, 0.5000001, 0.9]),
    ),
    max_size=20,
)


@given(HITS, st.randoms())
def test_the_order_of_hits_does_not_depend_on_who_answered_first(
    hits: list[Hit], random: object
) -> None:
    shuffled = list(hits)
    random.shuffle(shuffled)  # type: ignore[attr-defined]  # hypothesis types it as object

    merged = ordered(shuffled)

    assert merged == ordered(hits)
    assert len({(hit.doc_no, hit.ord) for hit in merged}) == len(merged)
    assert [hit.score for hit in merged] == sorted((hit.score for hit in merged), reverse=True)


@given(st.lists(st.floats(0.0, 1.0), max_size=15), st.integers(1, 5), st.integers(0, 10))
def test_the_number_of_passages_stays_in_its_bounds(
    scores: list[float], least: int, more: int
) -> None:
    passages = [passage(n, score) for n, score in enumerate(sorted(scores, reverse=True))]

    kept = adaptive(passages, least, least + more)

    assert list(kept) == passages[: len(kept)]
    assert min(least, len(passages)) <= len(kept) <= least + more
