"""The `inference-proxy` role: beside one Ollama, the only queue to it."""

from __future__ import annotations

from typing import Final

from chatbot_core import names
from chatbot_core.errors import Invalid
from chatbot_runtime.adapters.ollama import Ollama
from chatbot_runtime.adapters.postgres.members import PostgresMembers
from chatbot_runtime.adapters.postgres.pool import Database
from chatbot_runtime.background import background
from chatbot_runtime.internal_http import serve_internal, serve_on
from chatbot_runtime.routes import inference as routes
from chatbot_runtime.services.inference import InferenceQueue
from chatbot_runtime.services.members import Heartbeat
from chatbot_runtime.services.model_keeper import ModelKeeper
from chatbot_runtime.settings import RuntimeSettings
from chatbot_runtime.sockets import listen

_ROLE: Final = names.Role.INFERENCE_PROXY


async def run(settings: RuntimeSettings) -> None:
    """Serve until told to stop, then let running answers end within `drain_s`."""
    boot = settings.boot.inference_proxy
    if not boot.model:
        raise Invalid("boot.inference_proxy.model", boot.model, "the name of a model")
    ollama = Ollama(boot.ollama_url)
    database = Database(settings.secret, settings.secret_path(names.FILE_DATABASE_CA), 1)
    keeper = ModelKeeper(ollama, boot, settings.clock)
    inference = InferenceQueue(
        ollama, boot, lambda: settings.live.inference, settings.clock, keeper.doubt
    )
    listener = listen(settings.bind_host, boot.port)
    port: int = listener.getsockname()[1]

    def ready() -> tuple[bool, str]:
        return (False, "draining") if settings.stopping.is_set() else keeper.ready()

    endpoint = routes.GenerateEndpoint(
        inference, keeper.ready, lambda: settings.secret(names.FILE_INTERNAL_TOKEN)
    )
    host = f"[{settings.address}]" if ":" in settings.address else settings.address
    heartbeat = Heartbeat(
        PostgresMembers(database),
        settings,
        _ROLE,
        f"{host}:{port}",
        ready,
        lambda: _report(settings, keeper, inference),
    )
    try:
        # The heartbeat goes on while answers end, so that nobody takes a draining proxy for lost.
        async with (
            serve_internal(boot.internal_port, ready, host=settings.bind_host),
            background(keeper.keep(), heartbeat.run()),
            serve_on(listener, routes.app(endpoint), boot.drain_s),
        ):
            await settings.stopping.wait()
        await heartbeat.leave()
    finally:
        await inference.close()
        await ollama.close()
        await database.close()


def _report(
    settings: RuntimeSettings, keeper: ModelKeeper, inference: InferenceQueue
) -> dict[str, object]:
    boot = settings.boot.inference_proxy
    return {
        **keeper.state.report(boot.model),
        "queue_depth": inference.depth,
        "in_flight": inference.running,
        "slots": boot.parallel_requests,
    }
