"""The two documents between operator and runtime: RuntimeConfig down, RuntimeStatus up.

The operator commands nothing: it writes `RuntimeConfig` into the ConfigMap and reads
`RuntimeStatus` from any API pod. `boot` holds one section a role; the section's hash stands in
that tier's pod template, so that an edit rolls exactly that tier. `live` is re-read by every
process while it runs. Both documents carry a version; an unknown one is refused.

Hashes leave out values equal to their default, so that a new field with a default rolls nothing.
"""

from __future__ import annotations

import hashlib
import json
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from chatbot_core import names
from chatbot_core.errors import Invalid

CONFIG_VERSION: Final = 1
STATUS_VERSION: Final = 1
HASH_PREFIX: Final = "v1:"


def _only_where_stated(default: Any) -> Any:
    """Return the Field of what few clusters have: the documents of the others do not show it."""
    return Field(default, exclude_if=lambda value: value == default)


class _Document(BaseModel):
    # A field that a newer operator adds must not stop an older runtime; a new version may.
    model_config = ConfigDict(frozen=True, extra="ignore")


class S3Store(_Document):
    """An S3 bucket; its credentials are files of this folder, below that of all Secrets."""

    kind: Literal["s3"] = "s3"
    name: str = "main"
    bucket: str
    endpoint: str = ""
    region: str = "us-east-1"
    prefix: str = ""
    path_style: bool = False
    server_side_encryption: str = ""
    create_bucket: bool = False
    folder: str = _only_where_stated(names.DOCUMENTS_FOLDER)


class FolderStore(_Document):
    """A folder of this machine; only the `demo` role uses it."""

    kind: Literal["folder"] = "folder"
    name: str = "main"
    path: str


Store = Annotated[S3Store | FolderStore, Field(discriminator="kind")]


class ApiBoot(_Document):
    """Boot section of the `api` role."""

    port: int = names.PORT_PUBLIC
    internal_port: int = names.PORT_INTERNAL
    stores: tuple[Store, ...] = ()
    drain_s: int = 150


class ShardBoot(_Document):
    """Boot section of the `shard` role; port 0 takes a free one (several on one machine)."""

    port: int = names.PORT_SHARD
    internal_port: int = names.PORT_INTERNAL


class IngestBoot(_Document):
    """Boot section of the `ingest` role."""

    internal_port: int = names.PORT_INTERNAL
    stores: tuple[Store, ...] = ()


class InferenceProxyBoot(_Document):
    """Boot section of the `inference-proxy` role: beside an Ollama of ours, or before an endpoint.

    `endpoint` is the name of a server that is somebody else's, "" for our own: nothing is pulled,
    loaded or kept there, so that `pull` and `keep_loaded` do not speak of it.
    """

    endpoint: str = _only_where_stated("")
    port: int = names.PORT_PROXY
    internal_port: int = names.PORT_INTERNAL
    ollama_url: str = f"http://127.0.0.1:{names.PORT_OLLAMA}"
    model: str = ""
    pull: bool = True
    parallel_requests: int = 2
    context_tokens: int = 4096
    keep_loaded: bool = True
    drain_s: int = 150


class MigrateBoot(_Document):
    """Boot section of the `migrate` role: what the schema is made with."""

    schema_version: int = 1
    shards: int = 2


class EraseBoot(_Document):
    """Boot section of the `erase` role: what it empties; nothing where the data are kept."""

    stores: tuple[S3Store, ...] = ()
    database: bool = False


class Boot(_Document):
    """One section a role. An edit of a section restarts the pods of that role only.

    Every external endpoint has a section of its own, by which its one proxy runs.
    """

    api: ApiBoot = ApiBoot()
    shard: ShardBoot = ShardBoot()
    ingest: IngestBoot = IngestBoot()
    inference_proxy: InferenceProxyBoot = InferenceProxyBoot()
    migrate: MigrateBoot = MigrateBoot()
    erase: EraseBoot = EraseBoot()
    endpoints: tuple[InferenceProxyBoot, ...] = _only_where_stated(())

    def of_endpoint(self, name: str) -> Boot:
        """Return the document of the proxy before one endpoint. Raises Invalid for another name."""
        for section in self.endpoints:
            if section.endpoint == name:
                return self.model_copy(update={"inference_proxy": section})
        known = ", ".join(one.endpoint for one in self.endpoints) or "none: there are no endpoints"
        raise Invalid("endpoint", name, f"one of boot.endpoints ({known})")


class Ingest(_Document):
    """How new documents are read and cut."""

    chunk_size_characters: int = 500
    chunk_overlap_characters: int = 50
    max_parallel_chunks: int = 10
    max_document_size_bytes: int = 50 * 1024 * 1024


class Retrieval(_Document):
    """How passages are found."""

    shards: int = 2
    replicas_per_shard: int = 1
    min_coverage_percent: int = 100
    min_passages: int = 3
    max_passages: int = 10


class Inference(_Document):
    """How answers are generated."""

    model: str = ""
    max_waiting: int = 32
    max_wait_s: int = 30
    max_answer_s: int = 120
    max_output_tokens: int = 512
    temperature_percent: int = 0
    seed: int = 0
    context_tokens: int = 4096


class SelfTest(_Document):
    """Which combination wants a passed self-test: a hash made by the operator; empty = none."""

    wanted: str = ""


class Live(_Document):
    """What every process re-reads while it runs."""

    ingest: Ingest = Ingest()
    retrieval: Retrieval = Retrieval()
    inference: Inference = Inference()
    answer_mode: Literal["Generate", "Extract"] = "Generate"
    self_test: SelfTest = SelfTest()


class RuntimeConfig(_Document):
    """The whole document, `runtime.json` of the ConfigMap."""

    version: Literal[1] = CONFIG_VERSION
    cluster: str
    namespace: str = ""
    runtime_version: str = ""
    boot: Boot = Boot()
    live: Live = Live()

    def to_json(self) -> str:
        """Return the document as stable JSON with every value, for people to read."""
        return json.dumps(self.model_dump(mode="json"), indent=1, sort_keys=True)


def _plain(document: BaseModel) -> Any:
    return document.model_dump(mode="json", exclude_defaults=True)


def digest(value: Any) -> str:
    """Return `v1:` and 16 hex digits over the canonical JSON of a value."""
    canonical = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return HASH_PREFIX + hashlib.sha256(canonical.encode()).hexdigest()[:16]


def boot_section(boot: Boot, role: names.Role) -> BaseModel:
    """Return the section of a role (`demo` has none: it starts the others)."""
    sections: dict[names.Role, BaseModel] = {
        names.Role.API: boot.api,
        names.Role.SHARD: boot.shard,
        names.Role.INGEST: boot.ingest,
        names.Role.INFERENCE_PROXY: boot.inference_proxy,
        names.Role.MIGRATE: boot.migrate,
        names.Role.ERASE: boot.erase,
    }
    return sections[role]


def boot_hash(boot: Boot, role: names.Role) -> str:
    """Return the hash of a role's boot section: part of that tier's pod template."""
    return section_hash(boot_section(boot, role))


def section_hash(section: BaseModel) -> str:
    """Return the hash of one boot section."""
    return digest(_plain(section))


def acknowledged_hash(boot: Boot, role: names.Role, live: Live) -> str:
    """Return what a process reports: its boot section as started with, and `live` as it runs now.

    The operator computes the same from the document it wrote; `Reconciling` ends when all agree.
    """
    return digest({"boot": _plain(boot_section(boot, role)), "live": _plain(live)})


class Member(_Document):
    """One running process, from its heartbeat row; `endpoint` is the one its proxy is before."""

    role: str
    name: str
    config_hash: str
    ready: bool
    reason: str = ""
    shard: int | None = None
    endpoint: str = ""
    age_s: float = 0.0


class SelfTestResult(_Document):
    """The last outcome of the self-test for one wanted combination."""

    wanted: str = ""
    model_digest: str = ""
    generation: int = 0
    passed: bool = False
    consecutive_failures: int = 0
    message: str = ""


class ModelStatus(_Document):
    """The model as Ollama holds it."""

    name: str = ""
    digest: str = ""
    downloaded_bytes: int = 0
    total_bytes: int = 0
    loaded: bool = False


class RetrievalStatus(_Document):
    """The corpus as the database counts it."""

    generation: int = 0
    slot_map_epoch: int = 0
    documents: int = 0
    chunks: int = 0


class RuntimeStatus(_Document):
    """What an API pod knows about the whole cluster, at `/internal/status`."""

    version: Literal[1] = STATUS_VERSION
    database: Literal["ok", "unavailable", "unmigrated"] = "ok"
    schema_version: int = 0
    #: Oldest release of the runtime that works with the stored data; "" = not told.
    oldest_version: str = ""
    #: How many slots each shard owns or is to own, by its number; () = not told.
    owned_slots: tuple[int, ...] = ()
    members: tuple[Member, ...] = ()
    retrieval: RetrievalStatus = RetrievalStatus()
    model: ModelStatus = ModelStatus()
    self_test: SelfTestResult = SelfTestResult()
    #: Documents, and erasures that are due, by store; None from a runtime that does not count them.
    stored: dict[str, int] | None = None
