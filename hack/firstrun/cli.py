"""The arguments of ``hack/quickstart`` and the order of what it does."""

from __future__ import annotations

import argparse
import contextlib
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from types import FrameType

from environment import ROOT
from firstrun import closing, embedded, kubernetes, plan, questions, state
from firstrun.errors import StageFailedError
from firstrun.kube import CLUSTER
from firstrun.preparation import Preparation
from firstrun.report import Report
from firstrun.state import DEFAULT_NAME, Book
from localkube.cli import PROVIDERS
from localkube.errors import ClusterError

NO_CLUSTER = 3
FAILED = 1
INTERRUPTED = 130

_DESCRIPTION = """From a fresh clone to an answer about your documents, with a citation.

Stage 1 runs the application alone on this machine, while the cluster is already being built.
Stage 2 runs it on Kubernetes: operator, one ChatbotCluster object, the same question.
Exit codes: 0 stage 2 answered (with --embedded: stage 1), 1 something failed,
2 wrong arguments, 3 no cluster is possible on this machine (stage 1 was shown)."""


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    top = argparse.ArgumentParser(
        "hack/quickstart", description=_DESCRIPTION, formatter_class=argparse.RawTextHelpFormatter
    )
    top.add_argument("--embedded", action="store_true", help="stage 1 alone, no Kubernetes")
    top.add_argument("--provider", choices=PROVIDERS, help="default: kind with Docker, else node")
    top.add_argument(
        "--registry", default="", metavar="R", help="where provider 'current' gets images from"
    )
    top.add_argument(
        "--name", default=DEFAULT_NAME, help="the local cluster's name (default: %(default)s)"
    )
    top.add_argument("--yes", action="store_true", help="do not ask (provider 'current')")
    top.add_argument("--down", action="store_true", help="end the cluster, leave nothing behind")
    return top


def main(arguments: Sequence[str]) -> int:
    """Run the quick start; return its exit code."""
    top = parser()
    options = top.parse_args(arguments)
    if options.provider == "current" and not (options.registry or options.down):
        top.error("--provider current needs --registry: where your cluster can pull images from")
    signal.signal(signal.SIGTERM, _interrupt)
    report, book = Report(), Book(state.folder(options.name))
    try:
        with report.heartbeat():
            return _down(options.name, book) if options.down else _up(options, book, report)
    except (StageFailedError, ClusterError) as error:
        report.plain(f"\nfailed: {error}\n\nstart again and it continues: hack/quickstart")
        return FAILED
    except KeyboardInterrupt:
        report.plain("\ninterrupted; start again and it continues: hack/quickstart")
        return INTERRUPTED


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _up(options: argparse.Namespace, book: Book, report: Report) -> int:
    the_plan = plan.make(
        options.name, options.provider, book.state.seconds, embedded_only=options.embedded
    )
    report.plain(the_plan.text() + "\n")
    embedded.end_leftover(book)
    if the_plan.provider == "current" and not options.yes:
        _confirm(report)
    if not the_plan.with_cluster:
        embedded.show(report, book, the_plan)
        book.note(finished=True)
        return _without_cluster(the_plan, report)
    preparation = Preparation(the_plan, book, report, options.registry)
    try:
        return _both_stages(the_plan, book, report, preparation)
    finally:
        preparation.end()


def _both_stages(the_plan: plan.Plan, book: Book, report: Report, preparation: Preparation) -> int:
    if book.state.embedded_answered:
        report.line("stage 1 answered before this run was interrupted; going on with stage 2")
    else:
        embedded.show(report, book, the_plan)
    question = questions.chosen()
    access = kubernetes.show(report, book, the_plan, preparation, question)
    book.note(finished=True, provider=the_plan.provider)
    report.plain(closing.text(access, question, the_plan.name))
    return 0


def _without_cluster(the_plan: plan.Plan, report: Report) -> int:
    if the_plan.embedded_only:
        report.plain("next: hack/quickstart   (the same on Kubernetes)")
        return 0
    report.plain(f"no Kubernetes: {the_plan.obstacle}\nnext: {the_plan.next_step}")
    return NO_CLUSTER


def _confirm(report: Report) -> None:
    context = subprocess.run(
        ["kubectl", "config", "current-context"], capture_output=True, text=True, check=False
    )
    name = context.stdout.strip() or "none"
    if not sys.stdin.isatty():
        raise StageFailedError(f"the current context is {name}; nobody to ask, say --yes if so")
    report.words(f"install into the current context {name}? [y/N] ")
    if sys.stdin.readline().strip().lower() not in {"y", "yes"}:
        raise StageFailedError("nothing was changed")


def _down(name: str, book: Book) -> int:
    embedded.end_leftover(book)
    provider = ("--provider", book.state.provider) if book.state.provider else ()
    if book.state.provider == "current":
        kubernetes.remove_from_current(name)
    done = subprocess.run([*CLUSTER, *provider, "--name", name, "down"], cwd=ROOT, check=False)
    if done.returncode == 0:
        shutil.rmtree(book.path, ignore_errors=True)
        # Other clusters' quick starts may have theirs beside it.
        with contextlib.suppress(OSError):
            book.path.parent.rmdir()
    return done.returncode
