"""Config and Secret files -> settings, re-read when they change.

The operator edits a ConfigMap; kubelet swaps a symlink below the mounted folder some time later.
`boot` is what this process started with and stays; `live` follows the file. The acknowledged
hash says both, so that the operator knows what runs.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import Mapping
from pathlib import Path

from pydantic import ValidationError

from chatbot_core import names, runtime_config
from chatbot_core.errors import Invalid, NotFound
from chatbot_core.runtime_config import Boot, Live, RuntimeConfig
from chatbot_runtime.clock import SystemClock
from chatbot_runtime.ports import Clock

log = logging.getLogger(__name__)

#: A ConfigMap update reaches the pod within a minute anyway; a read of a few kB costs nothing.
POLL_S = 1.0


def parse_config(content: bytes, origin: str) -> RuntimeConfig:
    """Return the document. Raises Invalid, naming the path inside it, also for another version."""
    try:
        return RuntimeConfig.model_validate_json(content)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        path = ".".join(str(part) for part in first["loc"]) or "document"
        if path == "version":
            allowed = f"{runtime_config.CONFIG_VERSION}: use the runtime image that fits the config"
        else:
            allowed = first["msg"]
        raise Invalid(f"{origin}: {path}", first.get("input"), allowed) from None


class RuntimeSettings:
    """What a process knows about itself and its cluster.

    `stopping` is set once, on SIGTERM or SIGINT: every role waits for it and then drains.
    """

    def __init__(
        self,
        config_file: Path,
        secrets_dir: Path = Path(names.SECRETS_DIR),
        environ: Mapping[str, str] | None = None,
        clock: Clock | None = None,
    ) -> None:
        """Read the config once. Raises Invalid for a broken file, NotFound for a missing one."""
        env = os.environ if environ is None else environ
        self.clock: Clock = clock or SystemClock()
        self.started_s = self.clock.unix_s()
        self.stopping = asyncio.Event()
        self.pod_name = env.get(names.ENV_POD_NAME) or f"{socket.gethostname()}-{os.getpid()}"
        self.address = env.get(names.ENV_POD_IP) or "127.0.0.1"
        self._config_file = config_file
        self._secrets_dir = secrets_dir
        self._content = self._read()
        self._config = parse_config(self._content, str(config_file))

    @property
    def config(self) -> RuntimeConfig:
        """Return the document: `boot` as started with, everything else as it stands now."""
        return self._config

    @property
    def boot(self) -> Boot:
        """Return the sections this process started with."""
        return self._config.boot

    @property
    def live(self) -> Live:
        """Return the part that follows the file; ask again each time, do not keep it."""
        return self._config.live

    def stand_before(self, endpoint: str) -> None:
        """Be the proxy of one external endpoint from now on. Raises Invalid for an unknown one."""
        boot = self.boot.of_endpoint(endpoint)
        self._config = self._config.model_copy(update={"boot": boot})

    @property
    def bind_host(self) -> str:
        """Return the interface to listen on: every one inside a pod, loopback elsewhere."""
        if self.address == "127.0.0.1":
            return "127.0.0.1"
        return "::" if ":" in self.address else "0.0.0.0"  # noqa: S104 - the pod's own network

    def config_hash(self, role: names.Role) -> str:
        """Return the acknowledged hash of a role, for its heartbeat."""
        return runtime_config.acknowledged_hash(self.boot, role, self.live)

    def secret(self, name: str) -> str:
        """Return a Secret file's value without its last line end, read now (rotation).

        `name` is one of `names.FILE_*`. Raises NotFound.
        """
        path = self._secrets_dir / name
        try:
            return path.read_text(encoding="utf-8").rstrip("\r\n")
        except OSError as error:
            raise NotFound(f"secret file {path} cannot be read: {error.strerror}") from None

    def secret_path(self, name: str) -> Path | None:
        """Return the file of an optional Secret key, None where it is not mounted."""
        path = self._secrets_dir / name
        return path if path.is_file() else None

    def refresh(self) -> bool:
        """Take the file's `live` if it changed; say whether anything did.

        A file that is broken or gone is logged once and leaves everything as it was.
        """
        try:
            content = self._read()
        except NotFound as error:
            if self._content:
                log.warning("config file gone, its last content stays", extra={"why": str(error)})
            self._content = b""
            return False
        if content == self._content:
            return False
        self._content = content
        try:
            fresh = parse_config(content, str(self._config_file))
        except Invalid as error:
            log.warning("config refused, the former one stays", extra={"why": str(error)})
            return False
        before, self._config = self._config, fresh.model_copy(update={"boot": self.boot})
        return before != self._config

    async def watch(self) -> None:
        """Follow the file until cancelled."""
        while True:
            await asyncio.sleep(POLL_S)
            if self.refresh():
                log.info("live config changed", extra={"live": self.live.model_dump(mode="json")})

    def _read(self) -> bytes:
        try:
            return self._config_file.read_bytes()
        except OSError as error:
            raise NotFound(
                f"config file {self._config_file} cannot be read: {error.strerror}; "
                "pass --config FILE"
            ) from None
