"""Operators as real processes that start in a moment, so that many of them can be killed."""

from __future__ import annotations

import asyncio
import functools
import multiprocessing
import os
import sys
from collections.abc import Callable
from multiprocessing.context import ForkServerProcess
from pathlib import Path

from chatbot_operator import main
from chatbot_operator.main import Process, run
from chatbot_operator.plan import plan
from chatbot_operator.telemetry import set_up_logging

_context = multiprocessing.get_context("forkserver")
# pytest is imported by every child, since it is the main module.
_context.set_forkserver_preload([__name__, "pytest"])
# Python before 3.13 imports the preloaded modules with a path of its own, and fails silently
# (https://github.com/python/cpython/issues/117378).
os.environ["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)


def _work(kubeconfig: str, process: Process, log: Path, prepare: Callable[[], None]) -> None:
    os.environ["KUBECONFIG"] = kubeconfig
    sink = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(sink, 1)
    os.dup2(sink, 2)
    set_up_logging(process.log_level)
    prepare()
    asyncio.run(run(process, plan))


def runtime_at(port: int) -> None:
    """Let the operator ask its runtimes on this port."""
    client = functools.partial(main.HttpRuntimeClient, port=port)
    main.HttpRuntimeClient = client  # type: ignore[assignment,misc] # a port of the tests


def start(
    kubeconfig: Path, process: Process, log: Path, prepare: Callable[[], None] = lambda: None
) -> ForkServerProcess:
    """Return a started operator; `kill` is SIGKILL. The imports were done once, before the fork.

    `prepare` runs first in the new process and must be picklable; `log` takes what it prints.
    """
    started = _context.Process(
        target=_work, args=(str(kubeconfig), process, log, prepare), daemon=True
    )
    started.start()
    return started
