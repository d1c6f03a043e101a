"""The `inference-proxy` role: the only queue to one Ollama, ours beside it or an endpoint."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from chatbot_core import names
from chatbot_core.errors import Invalid
from chatbot_runtime.adapters.ollama import Ollama, Trust
from chatbot_runtime.adapters.postgres.members import PostgresMembers
from chatbot_runtime.background import background
from chatbot_runtime.internal_http import serve_internal, serve_on
from chatbot_runtime.roles.database import judged_database
from chatbot_runtime.routes import inference as routes
from chatbot_runtime.services.inference import InferenceQueue
from chatbot_runtime.services.members import Heartbeat
from chatbot_runtime.services.model_keeper import ModelKeeper
from chatbot_runtime.settings import RuntimeSettings
from chatbot_runtime.sockets import listen

_ROLE: Final = names.Role.INFERENCE_PROXY


@dataclass(frozen=True, slots=True)
class _Proxy:
    """The parts of this process that know whether it is ready and how busy it is."""

    settings: RuntimeSettings
    keeper: ModelKeeper
    inference: InferenceQueue

    def ready(self) -> tuple[bool, str]:
        """Return whether new questions may come; running answers end while we drain."""
        return (False, "draining") if self.settings.stopping.is_set() else self.keeper.ready()

    def report(self) -> dict[str, object]:
        """Return what the API chooses by, and what the status shows of the model."""
        boot = self.settings.boot.inference_proxy
        return {
            **self.keeper.state.report(boot.model),
            "endpoint": boot.endpoint,
            "queue_depth": self.inference.depth,
            "in_flight": self.inference.running,
            "slots": boot.parallel_requests,
        }

    def endpoint(self) -> routes.GenerateEndpoint:
        """Return the endpoint; the internal token is read anew for each request."""
        settings = self.settings
        return routes.GenerateEndpoint(
            self.inference, self.keeper.ready, lambda: settings.secret(names.FILE_INTERNAL_TOKEN)
        )


async def run(settings: RuntimeSettings) -> None:
    """Serve until told to stop, then let running answers end within `drain_s`."""
    boot = settings.boot.inference_proxy
    if not boot.model:
        raise Invalid("boot.inference_proxy.model", boot.model, "the name of a model")
    ollama = Ollama(boot.ollama_url, _trust(settings))
    database = judged_database(settings, 1)
    keeper = ModelKeeper(ollama, boot, settings.clock)
    inference = InferenceQueue(
        ollama, boot, lambda: settings.live.inference, settings.clock, keeper.doubt
    )
    proxy = _Proxy(settings, keeper, inference)
    try:
        await _serve(proxy, PostgresMembers(database))
    finally:
        await inference.close()
        await ollama.close()
        await database.close()


def _trust(settings: RuntimeSettings) -> Trust:
    """Return how the server is trusted: by its mounted files where the spec names Secrets."""

    def file(name: str) -> str:
        return settings.secret(name) if settings.secret_path(name) else ""

    return Trust(
        token=lambda: file(names.FILE_ENDPOINT_TOKEN), ca=lambda: file(names.FILE_ENDPOINT_CA)
    )


async def _serve(proxy: _Proxy, members: PostgresMembers) -> None:
    settings = proxy.settings
    boot = settings.boot.inference_proxy
    listener = listen(settings.bind_host, boot.port)
    host = f"[{settings.address}]" if ":" in settings.address else settings.address
    address = f"{host}:{listener.getsockname()[1]}"
    heartbeat = Heartbeat(members, settings, _ROLE, address, proxy.ready, proxy.report)
    # The heartbeat goes on while answers end, so that nobody takes a draining proxy for lost.
    async with (
        serve_internal(boot.internal_port, proxy.ready, host=settings.bind_host),
        background(proxy.keeper.keep(), heartbeat.run()),
        serve_on(listener, routes.app(proxy.endpoint()), boot.drain_s),
    ):
        await settings.stopping.wait()
    await heartbeat.leave()
