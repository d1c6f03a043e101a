"""`chatbot-runtime ROLE --config FILE`: settings, logs, signals, then the role.

Exit codes come from `chatbot_core.errors`: 0 after a clean stop, 2 for a broken config, 6 when an
outside world stayed away, 70 for a bug.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import importlib
import logging
import signal
import sys
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import uvloop

from chatbot_core import names
from chatbot_core.errors import Bug, ChatbotError, exit_code
from chatbot_core.names import Role
from chatbot_runtime import logs
from chatbot_runtime.settings import RuntimeSettings

log = logging.getLogger(__name__)

DEMO_PORT = names.PORT_PUBLIC


def parser() -> argparse.ArgumentParser:
    """Return the command line: one subcommand a role."""
    top = argparse.ArgumentParser(
        prog="chatbot-runtime", description="One process of the document-chat service."
    )
    roles = top.add_subparsers(dest="role", required=True, metavar="ROLE")
    for role in Role:
        if role is Role.DEMO:
            continue
        one = roles.add_parser(role.value)
        one.add_argument("--config", type=Path, default=Path(names.CONFIG_FILE), metavar="FILE")
        one.add_argument("--secrets", type=Path, default=Path(names.SECRETS_DIR), metavar="DIR")
        if role is Role.SHARD:
            one.add_argument("--index", type=int, required=True, metavar="N", help="from 0")
        if role is Role.INFERENCE_PROXY:
            about = "stand before this external endpoint, not beside an Ollama"
            one.add_argument("--endpoint", default="", metavar="NAME", help=about)
    demo = roles.add_parser(Role.DEMO.value, help="the whole service on this machine")
    demo.add_argument("--data", type=Path, metavar="DIR", help="kept; default: a folder that goes")
    demo.add_argument("--port", type=int, default=DEMO_PORT, metavar="N", help="0 = a free one")
    demo.add_argument("--model", type=Path, metavar="FILE.gguf", help="without: extracted answers")
    return top


def main(argv: Sequence[str] | None = None) -> None:
    """Run a role until it ends or is told to stop; exit with the error's code."""
    arguments = parser().parse_args(argv)
    sys.exit(uvloop.run(_run(arguments)))


async def _run(arguments: argparse.Namespace) -> int:
    role = Role(arguments.role)
    try:
        if role is Role.DEMO:
            logs.configure(role.value, role.value)
            return await _until_done(_demo(arguments))
        settings = RuntimeSettings(arguments.config, arguments.secrets)
        logs.configure(role.value, settings.pod_name)
        if role is Role.INFERENCE_PROXY and arguments.endpoint:
            settings.stand_before(arguments.endpoint)
        return await _until_done(_role(role, settings, arguments))
    except ChatbotError as error:
        print(f"chatbot-runtime {role.value}: {error}", file=sys.stderr)  # noqa: T201 - a person reads it
        return exit_code(error)
    except Exception as error:
        log.exception("ended by a defect")
        return exit_code(Bug(str(error)))


async def _role(role: Role, settings: RuntimeSettings, arguments: argparse.Namespace) -> None:
    stop_on_signals(settings.stopping.set)
    module = importlib.import_module(f"chatbot_runtime.roles.{role.value.replace('-', '_')}")
    watching = asyncio.create_task(settings.watch())
    log.info("started", extra={"config_hash": settings.config_hash(role)})
    try:
        if role is Role.SHARD:
            await module.run(settings, arguments.index)
        else:
            await module.run(settings)
    finally:
        watching.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await watching
    log.info("stopped")


async def _demo(arguments: argparse.Namespace) -> None:
    module = importlib.import_module("chatbot_runtime.roles.demo")
    stopping = asyncio.Event()
    stop_on_signals(stopping.set)
    await module.run(arguments.data, arguments.port, arguments.model, stopping)


async def _until_done(work: Awaitable[None]) -> int:
    await work
    return 0


def stop_on_signals(stop: Callable[[], None]) -> None:
    """Call `stop` on SIGTERM and SIGINT, the only place that handles them.

    A second signal ends the process the system's way, for a person who does not want to wait.
    """
    loop = asyncio.get_running_loop()

    def handle(number: signal.Signals) -> None:
        log.info("stopping", extra={"signal": number.name})
        stop()
        for one in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(one)

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, handle, number)
