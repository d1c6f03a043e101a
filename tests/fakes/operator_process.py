"""Operators as real processes that start in a moment, so that many of them can be killed."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
from multiprocessing.context import ForkServerProcess
from pathlib import Path

from chatbot_operator.main import Process, run
from chatbot_operator.plan import plan

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload([__name__])


def _work(kubeconfig: str, process: Process) -> None:
    os.environ["KUBECONFIG"] = kubeconfig
    asyncio.run(run(process, plan))


def start(kubeconfig: Path, process: Process) -> ForkServerProcess:
    """Return a started operator; `kill` is SIGKILL. The imports were done once, before the fork."""
    started = _context.Process(target=_work, args=(str(kubeconfig), process), daemon=True)
    started.start()
    return started
