"""The page of the reasons has a section for each, and says which of them stall."""

from __future__ import annotations

from pathlib import Path

from chatbot_core.reasons import STALLING, Reason

PAGE = Path(__file__).resolve().parents[2] / "docs" / "reasons.md"


def test_every_reason_has_its_section_and_says_whether_it_stalls() -> None:
    _, *sections = PAGE.read_text().split("\n## ")
    told = {
        title: text.startswith("*Stalled.*")
        for title, _, text in (section.partition("\n") for section in sections)
    }
    assert told == {str(reason): reason in STALLING for reason in Reason}
