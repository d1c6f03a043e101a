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
    """A question about the example documents and the words that a right answer must cite."""

    text: str
    fact: str
    document: str


def documents() -> list[Path]:
    """Return the example documents, always in the same order."""
    return sorted(path for path in DOCUMENTS.iterdir() if path.is_file())


def chosen() -> Question:
    """Return the question that the quick start asks: the first of the examples."""
    return every()[0]


def every() -> list[Question]:
    """Return the example questions, each with the words that a right answer must cite."""
    (entries,) = yaml_documents(QUESTIONS)
    return [Question(one["question"], one["fact"], one["document"]) for one in entries]


def yaml_documents(path: Path) -> list[Any]:
    """Return every document of a YAML file; the environment's interpreter has the parser."""
    program = "import json, sys, yaml; print(json.dumps(list(yaml.safe_load_all(sys.stdin))))"
    done = subprocess.run(
        [PYTHON, "-c", program], input=path.read_text(), capture_output=True, text=True, check=True
    )
    objects: list[Any] = json.loads(done.stdout)
    return [one for one in objects if one is not None]


def cited(answer: Answer, question: Question) -> Mapping[str, Any] | None:
    """Return the citation whose passage holds the fact, or None."""
    wanted = _plain(question.fact)
    return next((one for one in answer.citations if wanted in _plain(str(one["text"]))), None)


def _plain(text: str) -> str:
    return " ".join(text.casefold().split())
