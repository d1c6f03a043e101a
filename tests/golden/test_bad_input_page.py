"""The page of bad input lists every mistake that the tests make, with the answer it gets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "bad-input.md"
ROWS: list[dict[str, Any]] = yaml.safe_load((ROOT / "tests" / "bad_objects.yaml").read_text())


def table() -> str:
    """Return the table: what was written, the path and the words of the answer."""
    lines = ["| mistake | path | the answer says |", "|---|---|---|"]
    for row in ROWS:
        says = "; ".join(f"`{words}`" for words in row["says"]).replace("|", "\\|")
        lines.append(f"| {row['id'].replace('-', ' ')} | `{row['path']}` | {says} |")
    return "\n".join(lines) + "\n"


def test_the_page_lists_every_row(request: pytest.FixtureRequest) -> None:
    """`pytest tests/golden --update-golden` writes the table anew."""
    text = PAGE.read_text()
    head = text[: text.index("| mistake |")]
    if request.config.getoption("--update-golden"):
        PAGE.write_text(head + table())
    assert PAGE.read_text() == head + table()
