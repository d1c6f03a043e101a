"""What both stages do with a running service: log in, upload the examples, ask, show the answer."""

from __future__ import annotations

import time
from dataclasses import dataclass

from firstrun import questions
from firstrun.errors import StageFailedError
from firstrun.questions import Question
from firstrun.report import Report
from firstrun.service import Service, ServiceError

SEARCHABLE_TIMEOUT_S = 120.0
LOGIN_TIMEOUT_S = 30.0


@dataclass(frozen=True, slots=True)
class Access:
    """Where a service is and who may come in."""

    url: str
    username: str
    password: str

    def login(self) -> Service:
        """Return the service as the admin; a service that just started may take a moment."""
        deadline_s = time.monotonic() + LOGIN_TIMEOUT_S
        while True:
            try:
                return Service(self.url).login(self.username, self.password)
            except ServiceError as error:
                retryable = error.status in {0, 401, 503}
                if not retryable or time.monotonic() > deadline_s:
                    raise StageFailedError(f"login at {self.url}: {error}") from error
                time.sleep(max(error.retry_after_s, 0.5))


def upload_examples(service: Service, report: Report) -> None:
    """Upload every example document and wait until questions find them."""
    paths = questions.documents()
    began_s = time.monotonic()
    try:
        ids = [service.upload(path.name, path.read_bytes()) for path in paths]
        for document in ids:
            service.wait_searchable(document, SEARCHABLE_TIMEOUT_S)
    except ServiceError as error:
        raise StageFailedError(str(error)) from error
    took_s = time.monotonic() - began_s
    report.line(f"{len(ids)} documents uploaded and searchable after {took_s:.1f} s")


def show_answer(service: Service, question: Question, label: str, report: Report) -> None:
    """Ask and print the answer as it comes. Raises StageFailedError without the right citation."""
    with report.undisturbed():
        _show_answer(service, question, label, report)


def _show_answer(service: Service, question: Question, label: str, report: Report) -> None:
    report.plain(f"\n  question  ({label})\n    {question.text}\n  answer")
    report.words("    ")
    began_s = time.monotonic()
    try:
        answer = service.ask(question.text, on_token=report.words)
    except ServiceError as error:
        raise StageFailedError(str(error)) from error
    report.words("\n")
    citation = questions.cited(answer, question)
    if citation is None or not questions.right(answer, question):
        said = [str(one["name"]) for one in answer.citations]
        wanted = f"{' '.join(question.words)!r}, cited from {question.document}"
        raise StageFailedError(f"the answer should hold {wanted}; cited were {said}")
    passage = " ".join(str(citation["text"]).split())
    report.plain(f"  citation\n    [{citation['n']}] {citation['name']}: \u201c{passage}\u201d")
    took_s = time.monotonic() - began_s
    report.plain(f"  {answer.tokens} tokens in {took_s:.1f} s\n")
