"""The cluster and the images, made in the background while stage 1 is shown."""

from __future__ import annotations

import json
import sys
import threading
import time
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from typing import Any

from environment import ROOT
from firstrun.children import Child
from firstrun.errors import StageFailedError
from firstrun.kube import CLUSTER
from firstrun.plan import Plan
from firstrun.report import Report
from firstrun.state import Book
from images import application
from localkube.servers import BINARIES

RELEASE = (sys.executable, str(ROOT / "hack" / "release"))
#: Compilers must not take the processor from the stage that somebody is looking at.
POLITE = ("nice", "-n", "15")


class Preparation:
    """Two threads: one makes the cluster, one the images; `wait` joins them.

    Safe to end at any moment: what was half made is finished or removed by the next run.
    """

    def __init__(self, plan: Plan, book: Book, report: Report, registry: str) -> None:
        self._plan, self._book, self._report = plan, book, report
        self._registry = registry
        self._children: set[Child] = set()
        self._lock = threading.Lock()
        self._ended = False
        self._pool = ThreadPoolExecutor(2)
        self._cluster: Future[None] = self._pool.submit(self._make_cluster)
        self._images: Future[dict[str, str]] = self._pool.submit(self._make_images)

    def wait(self) -> dict[str, str]:
        """Return the images by name once they are in the cluster; the first failure ends it."""
        parts: tuple[Future[Any], ...] = (self._cluster, self._images)
        for part in wait(parts, return_when=FIRST_EXCEPTION).done:
            part.result()
        return self._images.result()

    def end(self) -> None:
        """End whatever still runs."""
        with self._lock:
            self._ended = True
            children = tuple(self._children)
        for child in children:
            child.end()
        self._pool.shutdown(cancel_futures=True)

    def _make_cluster(self) -> None:
        began_s = time.monotonic()
        with self._report.stage("stage 2, cluster", self._plan.expected_s("cluster")):
            if self._plan.provider == "node":
                self._run("cluster", *POLITE, *CLUSTER, "build", *BINARIES)
            self._run("cluster", *self._on_cluster("--yes", "up"))
        self._book.took("cluster", time.monotonic() - began_s)

    def _make_images(self) -> dict[str, str]:
        began_s = time.monotonic()
        with self._report.stage("stage 2, images", self._plan.expected_s("images")):
            pushed = ("--registry", self._registry, "--push") if self._registry else ()
            built = json.loads(self._run("images", *POLITE, *RELEASE, "images", *pushed))
            if self._registry:
                version = application.version()
                names = {name: f"{self._registry}/chatbot-{name}:{version}" for name in built}
                return {name: names[name] for name in application.NAMES}
            self._cluster.result()
            archives = [one["tar"] for one in built.values()]
            self._run("images", *self._on_cluster("load-image", *archives))
        self._book.took("images", time.monotonic() - began_s)
        return {name: str(one["image"]) for name, one in built.items()}

    def _on_cluster(self, *words: str) -> tuple[str, ...]:
        return (*CLUSTER, "--provider", self._plan.provider, "--name", self._plan.name, *words)

    def _run(self, stage: str, *command: str) -> str:
        with self._lock:
            if self._ended:
                raise StageFailedError("interrupted")
            child = Child(command, lambda line: self._report.line(_bare(stage, line)))
            self._children.add(child)
        try:
            return child.wait()
        finally:
            with self._lock:
                self._children.discard(child)


def _bare(stage: str, line: str) -> str:
    """Return a child's progress line behind its stage's name, without its own clock."""
    words = line.split("] ", 1)[-1] if line.startswith("[") else line
    return f"{stage}: {words.removeprefix(f'{stage}: ')}"
