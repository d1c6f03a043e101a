"""Every image runs as a pod would run it: its own user, a read-only root, its documented contract.

No cluster is needed: the archives are unpacked and entered in a mount namespace (as root).
"""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import boto3
import pytest
from botocore.exceptions import ClientError
from e2e.image_sandbox import Sandbox, unpack

from images.build import NAMES, build

READY_WITHIN_S = 30.0


@pytest.fixture(scope="session")
def sandbox(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Sandbox]:
    built = build(NAMES, docker=False)
    unpacked: dict[str, Sandbox] = {}

    def of(name: str) -> Sandbox:
        if name not in unpacked:
            folder = tmp_path_factory.mktemp(name)
            unpacked[name] = unpack(Path(built[name].tar), folder)
        return unpacked[name]

    return of


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


@contextmanager
def running(
    image: Sandbox,
    log: Path,
    ready: Callable[[], bool],
    *,
    command: Sequence[str] = (),
    environment: Mapping[str, str] | None = None,
    mounts: Mapping[Path, str] | None = None,
) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("ab") as output:
        process = subprocess.Popen(
            image.arguments(command, environment, mounts), stdout=output, stderr=subprocess.STDOUT
        )
    try:
        deadline_s = time.monotonic() + READY_WITHIN_S
        while not ready():
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline_s, log.read_text()
            time.sleep(0.1)
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(signal.Signals[image.stop_signal])
            process.wait(timeout=10)


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=1) as response:
            return bool(response.status == 200)
    except OSError:
        return False


@pytest.mark.parametrize(
    ("name", "module", "status"),
    [
        ("operator", "kopf", 0),
        ("operator", "kubernetes.aio", 0),
        ("operator", "chatbot_operator", 0),
        ("operator", "faiss", 1),
        ("operator", "fastapi", 1),
        ("runtime", "faiss", 0),
        ("runtime", "onnxruntime", 0),
        ("runtime", "chatbot_runtime", 0),
        ("runtime", "kopf", 1),
        ("runtime", "kubernetes", 1),
        ("runtime", "pip", 1),
    ],
)
def test_an_image_holds_the_packages_of_its_own_extra_alone(
    sandbox: Callable[[str], Sandbox], name: str, module: str, status: int
) -> None:
    ended = sandbox(name).run("python3", "-c", f"import {module}")
    assert ended.returncode == status, ended.stderr
    assert ("ModuleNotFoundError" in ended.stderr) == (status == 1)


@pytest.mark.parametrize("name", NAMES)
def test_an_image_runs_as_a_numeric_user_other_than_root(
    sandbox: Callable[[str], Sandbox], name: str
) -> None:
    image = sandbox(name)
    assert image.run("id", "-u").stdout.strip() == image.user.split(":")[0]
    assert image.user.replace(":", "").isdigit()
    assert image.user.split(":")[0] != "0"


@pytest.mark.parametrize("name", ["operator", "runtime"])
def test_an_image_holds_bytecode_and_no_source_tree(
    sandbox: Callable[[str], Sandbox], name: str
) -> None:
    root = sandbox(name).root
    package = root / f"opt/chatbot/lib/python3.11/site-packages/chatbot_{name}"
    assert list(package.rglob("*.pyc"))
    assert not list(root.rglob("pyproject.toml"))
    assert sandbox(name).command == (f"/opt/chatbot/bin/chatbot-{name}",)
    assert (root / f"opt/chatbot/bin/chatbot-{name}").exists()


def test_the_database_keeps_its_data_over_a_restart_and_stops_while_a_client_is_connected(
    sandbox: Callable[[str], Sandbox], tmp_path: Path
) -> None:
    image = sandbox("database")
    port = str(free_port())
    folders = {tmp_path / "data": "/var/lib/postgresql", tmp_path / "run": "/run/postgresql"}
    (tmp_path / "init").mkdir()
    (tmp_path / "init/1.sql").write_text(
        "CREATE TABLE made (by text); INSERT INTO made VALUES ('script')"
    )
    for folder in folders:
        folder.mkdir()
        folder.chmod(0o777)
    mounts = {**folders, tmp_path / "init": "/docker-entrypoint-initdb.d"}
    environment = {
        "POSTGRES_USER": "chatbot",
        "POSTGRES_DB": "documents",
        "POSTGRES_PASSWORD": "right",
    }

    def query(statement: str, password: str = "right") -> str:
        command = [
            "psql",
            "-h",
            "127.0.0.1",
            "-p",
            port,
            "-U",
            "chatbot",
            "-d",
            "documents",
            "-Atc",
            statement,
        ]
        ended = subprocess.run(
            image.arguments(command, {"PGPASSWORD": password}, mounts),
            capture_output=True,
            text=True,
            check=False,
            timeout=20,
        )
        return ended.stdout.strip() or ended.stderr.strip()

    def serve() -> AbstractContextManager[subprocess.Popen[bytes]]:
        return running(
            image,
            tmp_path / "log",
            lambda: query("SELECT 1") == "1",
            command=["docker-entrypoint.sh", "-c", f"port={port}", "-c", "work_mem=7MB"],
            environment=environment,
            mounts=mounts,
        )

    with serve() as server:
        assert query("SELECT by FROM made") == "script"
        assert query("SHOW work_mem") == "7MB"
        assert "password authentication failed" in query("SELECT 1", password="wrong")
        query("UPDATE made SET by = 'client'")
        sleeper = subprocess.Popen(
            image.arguments(
                [
                    "psql",
                    "-p",
                    port,
                    "-U",
                    "chatbot",
                    "-d",
                    "documents",
                    "-c",
                    "SELECT pg_sleep(60)",
                ],
                {},
                mounts,
            ),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        time.sleep(0.5)
        server.send_signal(signal.Signals[image.stop_signal])
        assert server.wait(timeout=10) == 0
        sleeper.wait(timeout=10)
    with serve():
        assert query("SELECT by FROM made") == "client"


def test_the_database_refuses_an_empty_folder_without_a_password(
    sandbox: Callable[[str], Sandbox],
) -> None:
    ended = sandbox("database").run("docker-entrypoint.sh", environment={"PGDATA": "/tmp/data"})
    assert (ended.returncode, "POSTGRES_PASSWORD" in ended.stderr) == (1, True)


def test_the_s3_gateway_keeps_objects_over_a_restart_and_refuses_a_wrong_secret(
    sandbox: Callable[[str], Sandbox], tmp_path: Path
) -> None:
    image = sandbox("s3-gateway")
    url = f"http://127.0.0.1:{free_port()}"
    data = tmp_path / "data"
    for folder in (data / "objects", data / "metadata"):
        folder.mkdir(parents=True)
        folder.chmod(0o777)

    def client(secret: str) -> boto3.client:
        return boto3.client(
            "s3",
            endpoint_url=url,
            region_name="us-east-1",
            aws_access_key_id="access",
            aws_secret_access_key=secret,
        )

    def serve() -> AbstractContextManager[subprocess.Popen[bytes]]:
        return running(
            image,
            tmp_path / "log",
            lambda: answers(f"{url}/health"),
            command=[
                "versitygw",
                "--port",
                url.removeprefix("http://"),
                "--health",
                "/health",
                "posix",
                "--sidecar",
                "/data/metadata",
                "/data/objects",
            ],
            environment={"ROOT_ACCESS_KEY": "access", "ROOT_SECRET_KEY": "right-secret"},
            mounts={data: "/data"},
        )

    with serve():
        s3 = client("right-secret")
        s3.create_bucket(Bucket="documents")
        s3.put_object(
            Bucket="documents", Key="team/1", Body=b"0123456789", Metadata={"kind": "text"}
        )
    with serve():
        part = s3.get_object(Bucket="documents", Key="team/1", Range="bytes=2-4")
        assert (part["Body"].read(), part["Metadata"]) == (b"234", {"kind": "text"})
        listed = s3.list_objects_v2(Bucket="documents", Prefix="team/")
        assert [entry["Key"] for entry in listed["Contents"]] == ["team/1"]
        s3.delete_object(Bucket="documents", Key="team/1")
        with pytest.raises(ClientError, match="NoSuchKey"):
            s3.get_object(Bucket="documents", Key="team/1")
        with pytest.raises(ClientError, match="SignatureDoesNotMatch"):
            client("wrong-secret").list_buckets()


def test_ollama_answers_from_the_model_inside_its_image(
    sandbox: Callable[[str], Sandbox], tmp_path: Path
) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    question = {
        "model": "smollm2:135m",
        "messages": [
            {"role": "user", "content": "The sky is blue.\n\nQuestion: Which colour is the sky?"}
        ],
        "options": {"temperature": 0, "num_predict": 32},
        "stream": False,
    }
    with running(
        sandbox("ollama-smollm2"),
        tmp_path / "log",
        lambda: answers(f"{url}/api/version"),
        environment={"OLLAMA_HOST": url},
    ):
        with urllib.request.urlopen(f"{url}/api/tags") as response:
            assert [model["name"] for model in json.load(response)["models"]] == ["smollm2:135m"]
        request = urllib.request.Request(f"{url}/api/chat", json.dumps(question).encode())
        with urllib.request.urlopen(request, timeout=60) as response:
            answer = json.load(response)
    assert (answer["done_reason"], "blue" in answer["message"]["content"]) == ("stop", True)
    assert "<|im_" not in answer["message"]["content"]
