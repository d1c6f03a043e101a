"""Document stores from a boot section, started when their outside world answers."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from chatbot_core import names
from chatbot_core.errors import Unavailable
from chatbot_core.runtime_config import FolderStore, Store
from chatbot_runtime.adapters.folder import FolderBlobs
from chatbot_runtime.adapters.s3 import S3Blobs
from chatbot_runtime.settings import RuntimeSettings

log = logging.getLogger(__name__)

_RETRY_S: Final = 2.0

Blobs = FolderBlobs | S3Blobs


def make_stores(settings: RuntimeSettings, stores: Sequence[Store]) -> dict[str, Blobs]:
    """Return an adapter a store, by name, in the order of the config."""
    ca_file = settings.secret_path(names.FILE_DOCUMENTS_CA)
    unix_s = settings.clock.unix_s
    return {
        store.name: (
            FolderBlobs(store.name, Path(store.path), unix_s)
            if isinstance(store, FolderStore)
            else S3Blobs(store, settings.secret, unix_s, ca_file)
        )
        for store in stores
    }


async def start_stores(stores: Mapping[str, Blobs]) -> None:
    """Make bucket or folder of every store, trying again while one is away."""
    for name, store in stores.items():
        while True:
            try:
                await store.start()
                break
            except Unavailable as error:
                log.info("waiting for a document store", extra={"store": name, "why": str(error)})
                await asyncio.sleep(_RETRY_S)
