"""Which question the quick start asks, and whether an answer holds the fact it asks for."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from environment import PYTHON, ROOT
from firstrun.service import Answer

DOCUMENTS = ROOT / "examples" / "documents"
QUESTIONS = ROOT / "examples" / "questions.yaml"


@dataclass(frozen=True, slots=True)
class Question:
    """A question, the words that a right answer holds, and the document that it cites."""

    text: str
    words: tuple[str, ...]
    document: str


def documents() -> list[Path]:
    """Return the example documents, always in the same order."""
    return sorted(path for path in DOCUMENTS.iterdir() if path.is_file())


def chosen() -> Question:
    """Return the question that the quick start asks: the first of the examples."""
    return every()[0]


def every() -> list[Question]:
    """Return the example questions."""
    (content,) = yaml_documents(QUESTIONS)
    return [
        Question(one["question"], tuple(one["answer"]), one["document"])
        for one in content["questions"]
    ]


def yaml_documents(path: Path) -> list[Any]:
    """Return every document of a YAML file; the environment's interpreter has the parser."""
    program = "import json, sys, yaml; print(json.dumps(list(yaml.safe_load_all(sys.stdin))))"
    done = subprocess.run(
        [PYTHON, "-c", program], input=path.read_text(), capture_output=True, text=True, check=True
    )
    objects: list[Any] = json.loads(done.stdout)
    return [one for one in objects if one is not None]


def cited(answer: Answer, question: Question) -> Mapping[str, Any] | None:
    """Return the citation of the right document whose passage holds the words, or None. Pure."""
    for citation in answer.citations:
        if citation["name"] == question.document and _holds(citation["text"], question.words):
            return citation
    return None


def right(answer: Answer, question: Question) -> bool:
    """Return whether the answer holds the words itself and cites where they stand. Pure."""
    return _holds(answer.text, question.words) and cited(answer, question) is not None


def _holds(text: str, words: tuple[str, ...]) -> bool:
    plain = " ".join(text.casefold().split())
    return all(word.casefold() in plain for word in words)
