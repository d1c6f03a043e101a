"""Certificates of a test, and a TLS door before a server that speaks in the clear."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import urlsplit


def make_certificate(folder: Path, name: str) -> Path:
    """Make an authority and a server certificate for `localhost`; return the authority's file."""
    ca, key, request = folder / f"{name}-ca.crt", folder / f"{name}.key", folder / f"{name}.csr"
    names, curve = (
        folder / "names",
        ["-nodes", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"],
    )
    names.write_text("subjectAltName=DNS:localhost\n")
    signing = ["-CA", ca, "-CAkey", f"{ca}.key", "-CAcreateserial", "-extfile", names]
    for command in (
        ["req", "-x509", *curve, "-subj", f"/CN={name}", "-keyout", f"{ca}.key", "-out", ca],
        ["req", "-new", *curve, "-subj", "/CN=localhost", "-keyout", key, "-out", request],
        ["x509", "-req", "-in", request, *signing, "-out", folder / f"{name}.crt"],
    ):
        subprocess.run(["openssl", *command], check=True, capture_output=True)
    return ca


def server_side(folder: Path, name: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / f"{name}.crt", folder / f"{name}.key")
    return context


async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    finally:
        writer.close()


@contextlib.asynccontextmanager
async def tls_door(url: str, tls: ssl.SSLContext, port: int = 0) -> AsyncIterator[str]:
    """Serve what stands behind a plain URL as https on `localhost`; yield the new URL."""
    behind, inside = urlsplit(url), set[asyncio.Task[None]]()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        inside.add(task)
        with contextlib.suppress(OSError, asyncio.CancelledError):
            answers, requests = await asyncio.open_connection(behind.hostname, behind.port)
            await asyncio.gather(copy(reader, requests), copy(answers, writer))
        writer.close()
        inside.discard(task)

    server = await asyncio.start_server(serve, "127.0.0.1", port, ssl=tls)
    try:
        yield f"https://localhost:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        for task in tuple(inside):
            task.cancel()
        await asyncio.gather(*inside, return_exceptions=True)
