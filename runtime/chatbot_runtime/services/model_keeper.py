"""Sees to it that Ollama holds the model, and says how far that is."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
from typing import Final

from chatbot_core.errors import ChatbotError
from chatbot_core.runtime_config import InferenceProxyBoot
from chatbot_runtime.domain.model import ServedModel
from chatbot_runtime.ports import Clock, ModelServer
from chatbot_runtime.services import inference_metrics as metrics

log = logging.getLogger(__name__)

#: How soon a restart of Ollama is noticed while nobody asks anything.
POLL_S: Final = 1.0
_POLL_UNREADY_S: Final = 0.25
#: A download that failed is tried again after this, doubled each time: the registry is shared.
_PULL_BACKOFF_S: Final = 2.0
_PULL_BACKOFF_MAX_S: Final = 60.0
_MB: Final = 1_000_000


@dataclasses.dataclass(frozen=True, slots=True)
class ModelState:
    """The model as this Ollama holds it; `reason` says why it is not ready."""

    ready: bool = False
    reason: str = "Ollama was not asked yet"
    digest: str = ""
    downloaded_bytes: int = 0
    total_bytes: int = 0

    def report(self, name: str) -> dict[str, object]:
        """Return what the heartbeat carries, in the words of `ModelStatus`."""
        return {
            "model": name,
            "digest": self.digest,
            "downloaded_bytes": self.downloaded_bytes,
            "total_bytes": self.total_bytes,
            "loaded": self.ready,
        }


class ModelKeeper:
    """Pulls, loads and watches one model; `state` is the truth as of the last look.

    At an external endpoint it only watches.
    """

    def __init__(self, server: ModelServer, boot: InferenceProxyBoot, clock: Clock) -> None:
        self._server = server
        self._boot = boot
        self._clock = clock
        self._look_now = asyncio.Event()
        self._pull_failures = 0
        self._pull_at_s = 0.0
        self.state = ModelState()

    def ready(self) -> tuple[bool, str]:
        """Return whether questions may come, and why not."""
        return self.state.ready, self.state.reason

    def doubt(self) -> None:
        """Look at once: an answer just failed."""
        self._look_now.set()

    async def keep(self) -> None:
        """Keep the model ready until cancelled."""
        while True:
            try:
                await self._look()
            except ChatbotError as error:
                self._become(dataclasses.replace(self.state, ready=False, reason=str(error)))
            self._look_now.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(POLL_S if self.state.ready else _POLL_UNREADY_S):
                    await self._look_now.wait()

    async def _look(self) -> None:
        name = self._boot.model
        found = await self._server.find(name)
        if self._boot.endpoint:
            self._become(self._at_endpoint(found))
            return
        if found is None:
            if not self._boot.pull:
                reason = f"the Ollama image does not hold {name}: check inference.managed.image"
                self._become(ModelState(reason=reason))
                return
            if self._clock.monotonic_s() < self._pull_at_s:
                return
            found = await self._pull(name)
        # An unloaded model is as good as a loaded one where the spec lets it go when idle.
        known = self.state.ready and not self._boot.keep_loaded
        if not known and not await self._server.is_loaded(name):
            await self._load(found)
        self._become(self._state(found, ready=True, reason=""))

    def _at_endpoint(self, found: ServedModel | None) -> ModelState:
        """Return the state of a model that somebody else keeps: it is there, or it is not."""
        if found is not None:
            return self._state(found, ready=True, reason="")
        name = self._boot.model
        cure = f"run `ollama pull {name}` there; we pull nothing at a server that is not ours"
        return ModelState(reason=f"the endpoint does not hold {name}: {cure}")

    async def _pull(self, name: str) -> ServedModel | None:
        try:
            async with contextlib.aclosing(self._server.pull(name)) as progress:
                async for step in progress:
                    done, total = step.downloaded_bytes, step.total_bytes
                    reason = f"{name}: {done // _MB} of {total // _MB} MB downloaded"
                    self.state = ModelState(reason=reason, downloaded_bytes=done, total_bytes=total)
        except ChatbotError:
            wait_s = min(_PULL_BACKOFF_S * 2.0**self._pull_failures, _PULL_BACKOFF_MAX_S)
            self._pull_failures += 1
            self._pull_at_s = self._clock.monotonic_s() + wait_s
            raise
        self._pull_failures = 0
        return await self._server.find(name)

    async def _load(self, found: ServedModel | None) -> None:
        name = self._boot.model
        self._become(self._state(found, ready=False, reason=f"{name} is being loaded"))
        began_s = self._clock.monotonic_s()
        await self._server.load(name, self._boot.context_tokens, self._boot.keep_loaded)
        metrics.LOAD.set(self._clock.monotonic_s() - began_s)

    def _state(self, found: ServedModel | None, *, ready: bool, reason: str) -> ModelState:
        if found is None:
            return ModelState(ready, reason)
        return ModelState(ready, reason, found.digest, found.size_bytes, found.size_bytes)

    def _become(self, state: ModelState) -> None:
        if (state.ready, state.reason) != (self.state.ready, self.state.reason):
            log.info(
                "model state changed",
                extra={"model": self._boot.model, "ready": state.ready, "why": state.reason},
            )
        self.state = state
