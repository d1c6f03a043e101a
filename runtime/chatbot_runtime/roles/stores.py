"""Document stores from a boot section, started when their outside world answers."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeAlias

from chatbot_core import names
from chatbot_core.errors import Unavailable
from chatbot_core.runtime_config import FolderStore, Store
from chatbot_runtime.adapters.folder import FolderBlobs
from chatbot_runtime.settings import RuntimeSettings

if TYPE_CHECKING:
    from chatbot_runtime.adapters.s3 import S3Blobs

log = logging.getLogger(__name__)

_RETRY_S: Final = 2.0

Blobs: TypeAlias = "FolderBlobs | S3Blobs"


def make_stores(settings: RuntimeSettings, stores: Sequence[Store]) -> dict[str, Blobs]:
    """Return an adapter a store, by name, in the order of the config."""
    return {store.name: _make_store(settings, store) for store in stores}


def _make_store(settings: RuntimeSettings, store: Store) -> Blobs:
    unix_s = settings.clock.unix_s
    if isinstance(store, FolderStore):
        return FolderBlobs(store.name, Path(store.path), unix_s)
    # boto3 takes half a second to import; a process over a folder does without.
    from chatbot_runtime.adapters.s3 import S3Blobs

    ca_file = settings.secret_path(f"{store.folder}/{names.FILE_CA}")
    return S3Blobs(store, settings.secret, unix_s, ca_file)


async def start_stores(stores: Mapping[str, Blobs]) -> None:
    """Make bucket or folder of every store; one that is away holds up no other."""
    await asyncio.gather(*(_start(store) for store in stores.values()))


async def _start(store: Blobs) -> None:
    while True:
        try:
            return await store.start()
        except Unavailable as error:
            log.info("waiting for a document store", extra={"store": store.name, "why": str(error)})
            await asyncio.sleep(_RETRY_S)
