"""The process as people start it: `KUBECONFIG=... chatbot-operator`."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from pathlib import Path

import httpx
from fakes.apiserver import Admin, until
from fakes.objects import cluster

from chatbot_operator.kinds import Ref
from localkube.publish import free_port

PROGRAM = Path(sys.executable).parent / "chatbot-operator"


async def test_it_starts_serves_its_probes_works_and_ends_on_sigterm(
    admin: Admin, namespace: str, operator_kubeconfig: Path
) -> None:
    port = free_port()
    environment = {
        "PATH": os.environ["PATH"],
        "KUBECONFIG": str(operator_kubeconfig),
        "WATCH_NAMESPACES": namespace,
        "RUNTIME_IMAGE": "localhost/chatbot-runtime:from-env",
        "PORT": str(port),
    }
    process = await asyncio.create_subprocess_exec(
        PROGRAM, env=environment, stderr=asyncio.subprocess.PIPE
    )
    try:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False) as http:

            async def ready() -> bool:
                try:
                    return (await http.get("/readyz")).is_success
                except httpx.HTTPError:
                    return False

            await until(ready, "/readyz", 30)
            await admin.create(cluster(namespace))

            async def made() -> bool:
                api = await admin.get(Ref("Deployment", namespace, "chat-api"))
                return api is not None and "from-env" in json.dumps(api["spec"])

            await until(made, "the API Deployment", 20)
            assert (await http.get("/livez")).text == "ok\n"
            metrics = (await http.get("/metrics")).text
            assert 'chatbot_operator_kube_calls_total{kind="Deployment",' in metrics
            assert "chatbot_operator_objects 1.0" in metrics
    finally:
        process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(15):
            _, errors = await process.communicate()
    lines = [json.loads(line) for line in errors.decode().splitlines()]
    assert process.returncode == 0, errors.decode()[-2000:]
    assert lines[-1]["message"] == "operator ended"
    assert any(line["message"] == "pass" and line["writes"] for line in lines)
    # The server answers so for a moment where the test before restarted it; kopf asks again.
    errors_told = [line for line in lines if line["level"] == "error"]
    assert [line for line in errors_told if "(re)initializing" not in line["message"]] == []
