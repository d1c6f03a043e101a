"""What the demo runs: one config document, its secrets, the command line of every process."""

from __future__ import annotations

import re
import secrets
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from chatbot_core import names
from chatbot_core.names import Role
from chatbot_core.runtime_config import (
    ApiBoot,
    Boot,
    FolderStore,
    Inference,
    InferenceProxyBoot,
    IngestBoot,
    Live,
    MigrateBoot,
    Retrieval,
    RuntimeConfig,
    ShardBoot,
)

SHARDS: Final = 2
ADMIN: Final = "admin"
#: Room for four passages and an answer: a prompt is read at some 120 tokens a second on one core.
CONTEXT_TOKENS: Final = 2048
_MAX_PASSAGES: Final = 4
_MAX_OUTPUT_TOKENS: Final = 128
_DRAIN_S: Final = 5


@dataclass(frozen=True, slots=True)
class Ports:
    """Loopback ports that must be known before their processes run; the rest take free ones."""

    public: int
    internal: int
    ollama: int


@dataclass(frozen=True, slots=True)
class Folders:
    """Where everything lies below the data folder."""

    root: Path

    @property
    def config(self) -> Path:
        """Return the config document's file."""
        return self.root / names.CONFIG_KEY

    @property
    def secrets(self) -> Path:
        """Return the folder laid out as Secrets are mounted in a pod."""
        return self.root / "secrets"

    @property
    def documents(self) -> Path:
        """Return the folder of the document store."""
        return self.root / "documents"

    @property
    def database(self) -> Path:
        """Return PostgreSQL's data folder."""
        return self.root / "database"

    @property
    def logs(self) -> Path:
        """Return the folder of the processes' output."""
        return self.root / "logs"

    @property
    def announcement(self) -> Path:
        """Return the file that tells programs where the running demo is."""
        return self.root / "demo.json"

    @property
    def admin_password(self) -> Path:
        """Return the file of the first admin's generated password."""
        return self.secrets / names.FILE_ADMIN_PASSWORD


def model_name(file: Path) -> str:
    """Return a model's name from its file's: `SmolLM2-135M-Instruct.Q4_1.gguf` has a tag too."""
    stem = re.sub(r"[^a-z0-9._-]+", "-", file.stem.lower())
    name, _, tag = stem.rpartition(".")
    return f"{name}:{tag}" if name else f"{tag}:latest"


def config(folders: Folders, ports: Ports, model: Path | None) -> RuntimeConfig:
    """Return the one document that all processes share; without a model answers are extracts."""
    stores = (FolderStore(path=str(folders.documents)),)
    name = model_name(model) if model else ""
    return RuntimeConfig(
        cluster="demo",
        boot=Boot(
            api=ApiBoot(
                port=ports.public, internal_port=ports.internal, stores=stores, drain_s=_DRAIN_S
            ),
            shard=ShardBoot(port=0, internal_port=0),
            ingest=IngestBoot(internal_port=0, stores=stores),
            inference_proxy=InferenceProxyBoot(
                port=0,
                internal_port=0,
                ollama_url=f"http://127.0.0.1:{ports.ollama}",
                model=name,
                pull=False,
                parallel_requests=1,
                context_tokens=CONTEXT_TOKENS,
                drain_s=_DRAIN_S,
            ),
            migrate=MigrateBoot(shards=SHARDS),
        ),
        live=Live(
            retrieval=Retrieval(shards=SHARDS, max_passages=_MAX_PASSAGES),
            inference=Inference(
                model=name, context_tokens=CONTEXT_TOKENS, max_output_tokens=_MAX_OUTPUT_TOKENS
            ),
            answer_mode="Generate" if model else "Extract",
        ),
    )


def write(folders: Folders, document: RuntimeConfig, dsn: str) -> None:
    """Write the document and its secrets; generated ones of an earlier run are kept."""
    for folder in (folders.documents, folders.logs):
        folder.mkdir(parents=True, exist_ok=True)
    folders.config.write_text(document.to_json(), encoding="utf-8")
    _secret(folders, names.FILE_DSN, dsn, keep=False)
    _secret(folders, names.FILE_INTERNAL_TOKEN, secrets.token_urlsafe(32))
    _secret(folders, names.FILE_ADMIN_USERNAME, ADMIN, keep=False)
    _secret(folders, names.FILE_ADMIN_PASSWORD, secrets.token_urlsafe(15))


def _secret(folders: Folders, name: str, value: str, *, keep: bool = True) -> None:
    file = folders.secrets / name
    file.parent.mkdir(parents=True, exist_ok=True)
    if keep and file.exists():
        return
    file.touch(mode=0o600)
    file.write_text(value + "\n", encoding="utf-8")


def internal_token(folders: Folders) -> str:
    """Return the token between processes, as written."""
    return (folders.secrets / names.FILE_INTERNAL_TOKEN).read_text(encoding="utf-8").strip()


def command(folders: Folders, role: Role, *more: str) -> list[str]:
    """Return the command line of a role, as a pod would run it."""
    common = ["--config", str(folders.config), "--secrets", str(folders.secrets)]
    return [sys.executable, "-m", "chatbot_runtime", role.value, *common, *more]


def ollama_command(model: Path, ports: Ports) -> list[str]:
    """Return the command line of the model server."""
    return [
        *(sys.executable, "-m", "chatbot_runtime.demo.ollama_server"),
        *("--model", str(model), "--name", model_name(model)),
        *("--context-tokens", str(CONTEXT_TOKENS), "--port", str(ports.ollama)),
    ]


def processes(folders: Folders, ports: Ports, model: Path | None) -> dict[str, list[str]]:
    """Return the command lines of the lasting processes by name."""
    lasting = {
        f"shard-{index}": command(folders, Role.SHARD, "--index", str(index))
        for index in range(SHARDS)
    }
    lasting["ingest"] = command(folders, Role.INGEST)
    if model is not None:
        lasting["ollama"] = ollama_command(model, ports)
        lasting["inference-proxy"] = command(folders, Role.INFERENCE_PROXY)
    lasting["api"] = command(folders, Role.API)
    return lasting
