"""The process `chatbot-operator`: arguments, wiring, and a clean end on SIGTERM."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import random
import secrets
import signal
import socket
import string
import sys
import time
import uuid
from collections.abc import Callable, Coroutine, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any, Final

from chatbot_core import names
from chatbot_core.errors import ChatbotError, Invalid, exit_code
from chatbot_core.retry import Clockwork
from chatbot_core.v1alpha1.release import Release
from chatbot_operator import feeders, handlers, health
from chatbot_operator.election import Election
from chatbot_operator.events import EventWriter
from chatbot_operator.execute import Executor
from chatbot_operator.fence import Fence
from chatbot_operator.heartbeats import Echo, Heartbeats
from chatbot_operator.kinds import AUTOSCALERS, WATCHED, Ref
from chatbot_operator.kube import Kube, connect
from chatbot_operator.model import Observed, OperatorSettings, Plan
from chatbot_operator.observe import World
from chatbot_operator.poller import Poller
from chatbot_operator.reconcile import Reconciler
from chatbot_operator.runtime_client import HttpRuntimeClient, RuntimeClient, new_http
from chatbot_operator.store import OwnerKey
from chatbot_operator.telemetry import Telemetry, set_up_logging
from chatbot_operator.workqueue import WorkQueue

PORT: Final = 8080
_LETTERS: Final = string.ascii_letters + string.digits

_log = logging.getLogger(__name__)

Planner = Callable[[Observed, float], Plan]


@dataclass(frozen=True, slots=True)
class Process:
    """What the process was started with."""

    settings: OperatorSettings
    namespaces: tuple[str, ...] = ()
    port: int = PORT
    log_level: str = "INFO"
    #: The Lease that decides which of several replicas writes; None = it is the only one.
    lease: Ref | None = None
    operator_class: str = ""


@dataclass(slots=True)
class Operator:
    """All parts, wired; `run` is the whole life of the process."""

    process: Process
    kube: Kube
    runtime: RuntimeClient
    plan: Planner
    telemetry: Telemetry
    election: Election | None = None
    fence: Fence = field(default_factory=Fence)
    world: World = field(init=False)
    queue: WorkQueue[OwnerKey] = field(init=False)
    heartbeats: Heartbeats = field(init=False)
    echo: Echo = field(default_factory=Echo)
    _tasks: list[Coroutine[Any, Any, None]] = field(init=False)

    def __post_init__(self) -> None:
        """Wire the parts: stores wake the queue, the queue runs the reconciler."""
        self.heartbeats = Heartbeats(time.monotonic)
        process = self.process
        self.world = World(self._wake, process.namespaces, process.operator_class)
        secret_polls = Poller(feeders.SecretPoll(self.kube, self.world.secrets, time.time).fetch)
        status_polls = Poller(
            feeders.StatusPoll(
                self.runtime,
                self.world.runtime,
                self.world.secrets,
                self.world.pods.of_owner,
                self.world.owner,
                time.time,
            ).fetch
        )
        writer = EventWriter(self.kube, time.time, socket.gethostname())
        reconciler = Reconciler(
            world=self.world,
            settings=self.process.settings,
            plan=self.plan,
            executor=Executor(self.kube, self.world, writer, time.time, _draw),
            secret_polls=secret_polls,
            status_polls=status_polls,
            telemetry=self.telemetry,
            now_s=time.time,
        )
        self.queue = WorkQueue(reconciler.reconcile, random.random)
        self.telemetry.objects.set_function(lambda: len(self.world.owners.owners()))
        self.telemetry.waiting.set_function(lambda: len(self.queue))
        self.telemetry.leader.set_function(lambda: self.election is None or self.election.leads)
        self._tasks = [secret_polls.run(), status_polls.run()]

    async def run(self, stop: asyncio.Event) -> None:
        """Feed the stores, and once they are complete work while leading, until `stop` is set."""
        pulse = health.Pulse(self.telemetry, self.heartbeats)
        async with AsyncExitStack() as stack:
            port = await stack.enter_async_context(
                health.serve(self.process.port, pulse, lambda: self.world.complete, self.telemetry)
            )
            _log.info("operator started", extra={"port": port, "namespaces": self.world.namespaces})
            group = await stack.enter_async_context(asyncio.TaskGroup())
            parts = [*self._tasks, *self._feeds(), pulse.run(), self._work_when_complete()]
            running = [group.create_task(part) for part in parts]
            group.create_task(self._watch_objects(stop))
            await stop.wait()
            for task in running:
                task.cancel()
        _log.info("operator ended")

    async def _watch_objects(self, stop: asyncio.Event) -> None:
        try:
            await handlers.watch_objects(self.world, self.echo, stop)
        finally:
            stop.set()

    def _wake(self, key: OwnerKey) -> None:
        self.queue.add(key)

    def _feeds(self) -> list[Coroutine[Any, Any, None]]:
        clockwork = Clockwork(time.monotonic, asyncio.sleep, random.random)
        world, parts = self.world, list[Coroutine[Any, Any, None]]()
        for namespace in world.namespaces:
            owners = feeders.owner_feed(namespace, world.owners, world.own_key)
            parts.append(
                feeders.list_again(self.kube, owners, self.heartbeats, self.echo, clockwork)
            )
            pods = feeders.pod_feed(namespace, world.pods)
            parts.append(feeders.list_watch(self.kube, pods, self.heartbeats, clockwork))
            for kind in WATCHED:
                if kind != "Pod":
                    children = feeders.child_feed(kind, namespace, world.children)
                    parts.append(
                        feeders.list_watch(self.kube, children, self.heartbeats, clockwork)
                    )
            for kind in AUTOSCALERS:
                others = feeders.autoscaler_feed(kind, namespace, world.autoscalers)
                parts.append(feeders.list_watch(self.kube, others, self.heartbeats, clockwork))
        return parts

    async def _work_when_complete(self) -> None:
        await self.world.until_complete()
        if self.election is None:
            await self._work()
        else:
            await self.election.run(self._work, self.fence.drained)

    async def _work(self) -> None:
        for key in self.world.owners.owners():
            # What another leader left half done has woken nobody here.
            self.queue.add(key)
        await self.queue.run()


def _release(text: str) -> str:
    try:
        Release.of(text)
    except Invalid as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    return text


def _draw(length: int) -> str:
    return "".join(secrets.choice(_LETTERS) for _ in range(length))


def arguments(argv: Sequence[str], environment: dict[str, str]) -> Process:
    """Return what the process was started with: flags, else environment."""
    parser = argparse.ArgumentParser(
        prog="chatbot-operator",
        description="Runs every ChatbotCluster of a Kubernetes cluster.",
        epilog="Every flag has an environment variable of its name: --runtime-image is "
        "RUNTIME_IMAGE. Credentials come from the pod's service account or from KUBECONFIG.",
    )
    for flag, default, words in _FLAGS:
        value = environment.get(flag.upper().replace("-", "_")) or default
        parser.add_argument(f"--{flag}", default=value, type=_TYPES.get(flag, str), help=words)
    given = parser.parse_args(argv)
    settings = OperatorSettings(
        runtime_image=given.runtime_image,
        runtime_version=given.runtime_version,
        database_image=given.database_image,
        store_image=given.store_image,
        ollama_image=given.ollama_image,
        image_pull_policy=given.image_pull_policy,
    )
    namespaces = tuple(part.strip() for part in given.watch_namespaces.split(",") if part.strip())
    return Process(
        settings,
        namespaces,
        given.port,
        given.log_level,
        given.leader_elect,
        given.operator_class,
    )


def _lease(text: str) -> Ref | None:
    namespace, _, name = text.partition("/")
    if text and (not namespace or not name or "/" in name):
        raise argparse.ArgumentTypeError(
            f"{text!r} is not allowed; must be NAMESPACE/NAME of a Lease, or empty to run alone"
        )
    return Ref("Lease", namespace, name) if text else None


_FLAGS: Final = (
    ("runtime-image", "localhost/chatbot-runtime:dev", "image of the runtime"),
    ("runtime-version", "0.1.0", "version that new objects get"),
    ("database-image", "localhost/chatbot-postgres:dev", "image of the managed database"),
    ("store-image", "localhost/chatbot-store:dev", "image of the S3 gateway"),
    ("ollama-image", "localhost/chatbot-ollama:dev", "image of Ollama"),
    ("image-pull-policy", "IfNotPresent", "pull policy where the object names none"),
    ("watch-namespaces", "", "comma-separated; empty = the whole cluster"),
    ("operator-class", "", "takes care of objects with this spec.operatorClass; empty = with none"),
    ("leader-elect", "", "NAMESPACE/NAME of the Lease of all replicas; empty = this one is alone"),
    ("port", str(PORT), "port of /livez, /readyz and /metrics"),
    ("log-level", "INFO", "DEBUG, INFO, WARNING or ERROR"),
)

_TYPES: Final[dict[str, Callable[[str], object]]] = {
    "port": int,
    "runtime-version": _release,
    "leader-elect": _lease,
}


async def run(process: Process, plan: Planner) -> None:
    """Connect and run until SIGTERM or SIGINT. Raises Unavailable without credentials."""
    telemetry = Telemetry()
    stop = asyncio.Event()
    identity = f"{socket.gethostname()}_{uuid.uuid4()}"
    async with AsyncExitStack() as stack:

        async def connected(fence: Fence) -> Kube:
            client = await connect(telemetry.on_call, f"{names.MANAGER} ({identity})", fence)
            stack.push_async_callback(client.close)
            return client

        election = None
        if process.lease is not None:
            # A connection of its own: nothing that the passes do can make a renewal wait.
            leases = await connected(Fence())
            election = Election(leases, process.lease, identity, _steady_s, time.time)
        fence = Fence() if election is None else Fence(election.write_left_s)
        kube = await connected(fence)
        runtime = HttpRuntimeClient(await stack.enter_async_context(new_http()))
        operator = Operator(process, kube, runtime, plan, telemetry, election, fence)
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        await operator.run(stop)


def _steady_s() -> float:
    """Return seconds of a clock that also counts while the machine is suspended."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


def main() -> None:
    """Run `chatbot-operator`; exit codes are those of `chatbot_core.errors`."""
    from chatbot_operator.plan import plan

    process = arguments(sys.argv[1:], dict(os.environ))
    set_up_logging(process.log_level)
    try:
        asyncio.run(run(process, plan))
    except ChatbotError as error:
        _log.exception("operator failed", extra={"error": str(error)})
        sys.exit(exit_code(error))
