"""The command line as a process: exit codes, signals, the internal port."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from fakes.ollama import MODEL, FakeOllama

from chatbot_core import names
from chatbot_core.errors import Unavailable
from chatbot_core.runtime_config import Boot, InferenceProxyBoot, RuntimeConfig
from chatbot_runtime.internal_http import serve_internal
from chatbot_runtime.sockets import listen


async def finished(*arguments: str) -> tuple[int | None, str]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "chatbot_runtime", *arguments, stderr=asyncio.subprocess.PIPE
    )
    _, said = await process.communicate()
    return process.returncode, said.decode()


async def test_a_missing_config_ends_with_4_and_says_what_to_pass(tmp_path: Path) -> None:
    code, said = await finished("ingest", "--config", str(tmp_path / "none.json"))
    assert code == 4
    assert "none.json cannot be read" in said
    assert "--config FILE" in said


async def test_a_config_of_another_version_ends_with_2(tmp_path: Path) -> None:
    file = tmp_path / "c.json"
    file.write_text('{"version": 7, "cluster": "docs"}')
    code, said = await finished("shard", "--index", "0", "--config", str(file))
    assert code == 2
    assert "version: 7 is not allowed; must be 1: use the runtime image that fits" in said


async def test_an_unknown_role_ends_with_2_and_lists_the_known() -> None:
    code, said = await finished("shrad")
    assert code == 2
    assert all(role.value in said for role in names.Role)


async def test_a_taken_port_ends_the_demo_with_6() -> None:
    with listen("127.0.0.1", 0) as taken:
        code, said = await finished("demo", "--port", str(taken.getsockname()[1]))
    assert code == 6
    assert "Address already in use" in said


@contextlib.asynccontextmanager
async def proxy_process(tmp_path: Path, ollama_url: str) -> AsyncIterator[tuple[int, int]]:
    with listen("127.0.0.1", 0) as free:
        port: int = free.getsockname()[1]
    boot = InferenceProxyBoot(port=0, internal_port=port, ollama_url=ollama_url, model=MODEL)
    file = tmp_path / "c.json"
    file.write_text(RuntimeConfig(cluster="d", boot=Boot(inference_proxy=boot)).to_json())
    secret = tmp_path / "secrets" / names.FILE_DSN
    secret.parent.mkdir(parents=True)
    secret.write_text("postgresql://nobody@127.0.0.1:1/none")
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "chatbot_runtime", "inference-proxy"),
        *("--config", str(file), "--secrets", str(tmp_path / "secrets")),
    )
    try:
        yield process.pid, port
        process.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(process.wait(), 10) == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def test_readiness_follows_the_model_and_sigterm_ends_with_0(tmp_path: Path) -> None:
    fake = FakeOllama()
    async with fake.serving() as url, proxy_process(tmp_path, url) as (_, port):
        body = await reading(f"http://127.0.0.1:{port}/readyz", 200)
        assert body == '{"status":"ok","reason":""}'
        assert "chatbot_inference_queue_depth 0.0" in await reading(
            f"http://127.0.0.1:{port}/metrics", 200
        )
        fake.loaded.clear()
        fake.models.clear()
        fake.pullable.clear()
        assert "file does not exist" in await reading(f"http://127.0.0.1:{port}/readyz", 503)


async def reading(url: str, status: int, within_s: float = 15) -> str:
    async with httpx.AsyncClient() as client, asyncio.timeout(within_s):
        while True:
            with contextlib.suppress(httpx.ConnectError):
                response = await client.get(url)
                if response.status_code == status:
                    return response.text
            await asyncio.sleep(0.05)


async def test_the_internal_port_says_why_it_is_not_ready() -> None:
    async with serve_internal(0, lambda: (False, "model is loading")) as port:
        url = f"http://127.0.0.1:{port}"
        assert await reading(f"{url}/readyz", 503) == (
            '{"status":"not ready","reason":"model is loading"}'
        )
        assert '"status":"ok"' in await reading(f"{url}/livez", 200)
        assert "chatbot_event_loop_lag_seconds" in await reading(f"{url}/metrics", 200)


async def test_a_taken_port_is_named() -> None:
    with listen("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(Unavailable, match=f"port {port} on 127.0.0.1 is unavailable"):
            listen("127.0.0.1", port)
