"""The `erase` role against a real S3 gateway and a real PostgreSQL: all of ours, nothing else."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config
from fakes.gateway import KEYS, s3_gateway

from chatbot_core import names
from chatbot_core.errors import Invalid
from chatbot_core.runtime_config import Boot, EraseBoot, RuntimeConfig, S3Store
from chatbot_runtime.adapters import s3_erase
from chatbot_runtime.adapters.postgres.pool import Database
from chatbot_runtime.adapters.postgres.removal import TABLES, drop_tables
from chatbot_runtime.roles import erase
from chatbot_runtime.settings import RuntimeSettings

THEIRS = ["readme.txt", "docs/report.pdf", "docs/default/notes.txt", "other/default/" + "a" * 32]


def key(number: int, prefix: str = "docs/") -> str:
    return f"{prefix}default/{number:032x}"


@pytest.fixture(scope="session", params=["plain", "with versions"])
def any_gateway(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[str, bool]]:
    versions = request.param == "with versions"
    with s3_gateway(tmp_path_factory.mktemp("erase"), versions=versions) as url:
        yield url, versions


@pytest.fixture
def client(any_gateway: tuple[str, bool]) -> Any:
    """A client of the gateway, and a bucket `team` that keeps versions where it can."""
    url, versions = any_gateway
    made = boto3.session.Session().client(
        "s3",
        endpoint_url=url,
        region_name="us-east-1",
        aws_access_key_id=KEYS[names.FILE_ACCESS_KEY_ID],
        aws_secret_access_key=KEYS[names.FILE_SECRET_ACCESS_KEY],
        config=Config(
            s3={"addressing_style": "path"}, request_checksum_calculation="when_required"
        ),
    )
    if "team" not in [one["Name"] for one in made.list_buckets()["Buckets"]]:
        made.create_bucket(Bucket="team")
        if versions:
            made.put_bucket_versioning(Bucket="team", VersioningConfiguration={"Status": "Enabled"})
    return made


def left(client: Any, versions: bool) -> set[str]:
    """Return every key that the bucket still knows, former versions and markers included."""
    if not versions:
        return {one["Key"] for one in client.list_objects_v2(Bucket="team").get("Contents", ())}
    page = client.list_object_versions(Bucket="team")
    return {one["Key"] for field in ("Versions", "DeleteMarkers") for one in page.get(field) or ()}


def settings(tmp_path: Path, url: str, prefix: str, dsn: str = "") -> RuntimeSettings:
    """Return the settings of an erase pod, from files as they are mounted."""
    store = S3Store(bucket="team", endpoint=url, prefix=prefix, path_style=True)
    boot = Boot(erase=EraseBoot(stores=(store,), database=bool(dsn)))
    config = tmp_path / "runtime.json"
    config.write_text(RuntimeConfig(cluster="docs", boot=boot).to_json())
    for name, value in {**KEYS, names.FILE_DSN: dsn}.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(value)
    return RuntimeSettings(config, tmp_path)


@pytest.fixture(params=["docs/", ""])
def prefix(request: pytest.FixtureRequest) -> str:
    value: str = request.param
    return value


async def test_all_of_ours_goes_and_what_others_put_beside_it_stays(
    any_gateway: tuple[str, bool],
    client: Any,
    prefix: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(s3_erase, "BATCH", 3)
    url, versions = any_gateway
    for number in range(8):
        client.put_object(Bucket="team", Key=key(number, prefix), Body=b"first")
        client.put_object(Bucket="team", Key=key(number, prefix), Body=b"second")
    client.delete_object(Bucket="team", Key=key(7, prefix))
    for theirs in THEIRS:
        client.put_object(Bucket="team", Key=theirs, Body=b"theirs")
    client.create_multipart_upload(Bucket="team", Key=key(9, prefix))
    client.create_multipart_upload(Bucket="team", Key="docs/theirs.bin")

    await erase.run(settings(tmp_path, url, prefix))
    assert left(client, versions) == set(THEIRS)
    uploads = client.list_multipart_uploads(Bucket="team").get("Uploads") or []
    assert [one["Key"] for one in uploads] == ["docs/theirs.bin"]
    await erase.run(settings(tmp_path, url, prefix))
    assert left(client, versions) == set(THEIRS)
    client.abort_multipart_upload(
        Bucket="team", Key="docs/theirs.bin", UploadId=uploads[0]["UploadId"]
    )


async def test_a_killed_erase_is_finished_by_the_next(
    any_gateway: tuple[str, bool], client: Any, tmp_path: Path, dsn: str
) -> None:
    url, versions = any_gateway
    for number in range(40):
        client.put_object(Bucket="team", Key=key(number), Body=b"x")
    config = settings(tmp_path, url, "docs/", dsn)._config_file
    command = [sys.executable, "-m", "chatbot_runtime", "erase", "--config", str(config)]
    command += ["--secrets", str(tmp_path)]
    for wait_s in (0.9, 1.2, 1.5):
        process = await asyncio.create_subprocess_exec(
            *command, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL
        )
        await asyncio.sleep(wait_s)
        if process.returncode is None:
            process.kill()
        await process.wait()
    process = await asyncio.create_subprocess_exec(*command)
    assert await process.wait() == 0
    assert not {one for one in left(client, versions) if one.startswith("docs/default/0")}
    assert await tables(Database(lambda _name: dsn)) == set()


async def test_a_bucket_that_is_gone_holds_nothing(
    any_gateway: tuple[str, bool], client: Any, tmp_path: Path
) -> None:
    made = settings(tmp_path, any_gateway[0], "docs/")
    text = made._config_file.read_text().replace('"bucket": "team"', '"bucket": "never-made"')
    made._config_file.write_text(text)
    await erase.run(RuntimeSettings(made._config_file, tmp_path))


async def tables(database: Database) -> set[str]:
    """Return every table of the database's public schema."""
    async with database.connection() as connection:
        rows = await connection.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
    await database.close()
    return {row["tablename"] for row in rows}


async def test_the_list_of_tables_is_that_of_the_migrations(database: Database) -> None:
    assert await tables(database) == {*TABLES, "chunk_1"}


async def test_our_tables_go_and_those_of_others_stay(database: Database) -> None:
    await database.execute("CREATE TABLE theirs (id int)")
    assert await drop_tables(database) is True
    assert await tables(database) == {"theirs"}
    assert await drop_tables(database) is False


async def test_a_database_that_was_never_ours_is_left_alone(empty: Database) -> None:
    await empty.execute("CREATE TABLE account (id int)")
    assert await drop_tables(empty) is False
    assert await tables(empty) == {"account"}


async def test_what_others_built_on_our_tables_is_named_and_nothing_is_dropped(
    database: Database,
) -> None:
    await database.execute("CREATE VIEW report AS SELECT count(*) FROM document")
    with pytest.raises(Invalid, match="view report depends on table document"):
        await drop_tables(database)
    assert await tables(database) == {*TABLES, "chunk_1"}


async def test_a_newer_schema_is_left_to_a_newer_image(database: Database) -> None:
    await database.execute("UPDATE setting SET value = '{\"version\": 99}'")
    with pytest.raises(Invalid, match="schema_version: 99"):
        await drop_tables(database)
