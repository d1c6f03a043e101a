"""Config and Secret files: read once, followed, kept when broken."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from chatbot_core import names, runtime_config
from chatbot_core.errors import Invalid, NotFound
from chatbot_core.names import Role
from chatbot_core.runtime_config import Boot, Inference, Live, RuntimeConfig, ShardBoot
from chatbot_runtime.settings import RuntimeSettings

BEFORE = RuntimeConfig(cluster="docs", boot=Boot(shard=ShardBoot(port=7301)))
AFTER = RuntimeConfig(
    cluster="docs",
    boot=Boot(shard=ShardBoot(port=7999)),
    live=Live(inference=Inference(max_waiting=5)),
)


@pytest.fixture
def mounted(tmp_path: Path) -> Path:
    """A folder as kubelet mounts a ConfigMap: the file is a link through a link `..data`."""
    put(tmp_path, "v1", BEFORE.to_json())
    (tmp_path / names.CONFIG_KEY).symlink_to(Path("..data") / names.CONFIG_KEY)
    return tmp_path


def put(folder: Path, version: str, content: str) -> None:
    """Swap the link `..data` in one step, as kubelet does."""
    (folder / version).mkdir()
    (folder / version / names.CONFIG_KEY).write_text(content)
    (folder / "..new").symlink_to(version)
    (folder / "..new").rename(folder / "..data")


def settings_of(folder: Path, **environ: str) -> RuntimeSettings:
    return RuntimeSettings(folder / names.CONFIG_KEY, folder / "secrets", environ)


async def test_live_follows_a_swapped_link_and_boot_stays_as_started(mounted: Path) -> None:
    settings = settings_of(mounted)
    assert settings.refresh() is False
    put(mounted, "v2", AFTER.to_json())
    assert settings.refresh() is True
    assert settings.live == AFTER.live
    assert settings.boot == BEFORE.boot
    assert settings.config_hash(Role.SHARD) == runtime_config.acknowledged_hash(
        BEFORE.boot, Role.SHARD, AFTER.live
    )


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("{", "Invalid JSON"),
        (BEFORE.to_json().replace('"version": 1', '"version": 2'), "use the runtime image"),
        (BEFORE.to_json().replace('"shards": 2', '"shards": "many"'), "valid integer"),
        (BEFORE.to_json().replace('"cluster"', '"clutser"'), "Field required"),
    ],
)
async def test_a_broken_file_refuses_the_start_and_is_ignored_later(
    mounted: Path, content: str, says: str, caplog: pytest.LogCaptureFixture
) -> None:
    settings = settings_of(mounted)
    put(mounted, "v2", content)
    with pytest.raises(Invalid, match=says):
        settings_of(mounted)
    with caplog.at_level(logging.WARNING):
        assert [settings.refresh() for _ in range(3)] == [False] * 3
    assert [record.message for record in caplog.records] == ["config refused, the former one stays"]
    assert settings.config == BEFORE
    put(mounted, "v3", AFTER.to_json())
    assert settings.refresh() is True


async def test_a_file_that_goes_and_comes_back_changes_nothing(
    mounted: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings = settings_of(mounted)
    (mounted / "..data").unlink()
    with caplog.at_level(logging.WARNING):
        assert [settings.refresh() for _ in range(3)] == [False] * 3
    assert len(caplog.records) == 1
    put(mounted, "v2", BEFORE.to_json())
    assert settings.refresh() is False
    assert settings.config == BEFORE


async def test_a_missing_file_says_what_to_pass(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match=r"runtime\.json cannot be read: .*--config FILE"):
        settings_of(tmp_path)


async def test_secrets_are_read_each_time_without_their_line_end(mounted: Path) -> None:
    settings = settings_of(mounted)
    with pytest.raises(NotFound, match="internal/token cannot be read"):
        settings.secret(names.FILE_INTERNAL_TOKEN)
    assert settings.secret_path(names.FILE_INTERNAL_TOKEN) is None
    file = mounted / "secrets" / names.FILE_INTERNAL_TOKEN
    file.parent.mkdir(parents=True)
    for value in ("first", "second"):
        file.write_text(f"{value}\n")
        assert settings.secret(names.FILE_INTERNAL_TOKEN) == value
    assert settings.secret_path(names.FILE_INTERNAL_TOKEN) == file


@pytest.mark.parametrize(
    ("environ", "address", "bind_host"),
    [
        ({}, "127.0.0.1", "127.0.0.1"),
        ({names.ENV_POD_IP: "10.1.2.3"}, "10.1.2.3", "0.0.0.0"),
        ({names.ENV_POD_IP: "fd00::7"}, "fd00::7", "::"),
    ],
)
async def test_a_pod_listens_everywhere_and_a_laptop_on_loopback(
    mounted: Path, environ: dict[str, str], address: str, bind_host: str
) -> None:
    settings = settings_of(mounted, **environ, **{names.ENV_POD_NAME: "docs-shard-0-0"})
    assert (settings.address, settings.bind_host, settings.pod_name) == (
        address,
        bind_host,
        "docs-shard-0-0",
    )
