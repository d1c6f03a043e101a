"""Log lines: JSON for machines, readable on a terminal."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator

import pytest

from chatbot_runtime import logs


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def root_logger() -> Iterator[None]:
    """Give the root logger back as it was: pytest's handlers hang on it."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    root.handlers = []
    yield
    root.handlers, root.level = handlers, level


def test_a_line_is_one_json_object_with_its_key_values() -> None:
    out = io.StringIO()
    logs.configure("ingest", "docs-ingest-0", out)
    logging.getLogger("a.b").info("indexed %d of %d", 1, 2, extra={"doc_id": "d1", "chunks": 3})
    line = json.loads(out.getvalue())
    assert line.pop("at").endswith("+00:00")
    assert line == {
        "level": "info",
        "message": "indexed 1 of 2",
        "logger": "a.b",
        "role": "ingest",
        "process": "docs-ingest-0",
        "doc_id": "d1",
        "chunks": 3,
    }


def test_a_traceback_stays_inside_its_line_and_strange_values_are_written_as_text() -> None:
    out = io.StringIO()
    logs.configure("api", "p", out)
    try:
        int("no such thing")
    except ValueError:
        logging.getLogger("x").exception("failed", extra={"what": {1}})
    lines = out.getvalue().splitlines()
    assert len(lines) == 1
    line = json.loads(lines[0])
    assert (line["level"], line["what"]) == ("error", "{1}")
    assert "ValueError: invalid literal" in line["traceback"]


def test_a_terminal_gets_a_readable_line() -> None:
    out = Terminal()
    logs.configure("demo", "demo", out)
    logging.getLogger("x").warning("slow start", extra={"took_s": 7})
    assert out.getvalue().rstrip().endswith("W demo: slow start took_s=7")
