from __future__ import annotations

import pytest
from pydantic import ValidationError

from chatbot_core import runtime_config
from chatbot_core.names import Role
from chatbot_core.runtime_config import (
    ApiBoot,
    Boot,
    FolderStore,
    Live,
    Retrieval,
    RuntimeConfig,
    S3Store,
    ShardBoot,
)

CONFIG = RuntimeConfig(
    cluster="demo",
    boot=Boot(api=ApiBoot(stores=(S3Store(bucket="docs"), FolderStore(path="/tmp/x")))),
)


def test_the_document_comes_back_unchanged() -> None:
    assert RuntimeConfig.model_validate_json(CONFIG.to_json()) == CONFIG


def test_an_unknown_version_is_refused() -> None:
    with pytest.raises(ValidationError, match="version"):
        RuntimeConfig.model_validate({"cluster": "demo", "version": 2})


def test_a_field_of_a_newer_operator_stops_no_older_runtime() -> None:
    newer = {"cluster": "demo", "live": {"shardz": 3, "answer_mode": "Extract"}}
    assert RuntimeConfig.model_validate(newer) == RuntimeConfig(
        cluster="demo", live=Live(answer_mode="Extract")
    )


def test_a_value_equal_to_its_default_changes_no_hash() -> None:
    stated = Boot(shard=ShardBoot(port=7300))
    assert runtime_config.boot_hash(stated, Role.SHARD) == runtime_config.boot_hash(
        Boot(), Role.SHARD
    )


def test_an_edit_of_one_section_changes_the_hash_of_that_role_only() -> None:
    edited = Boot(shard=ShardBoot(port=7301))
    changed = [
        role
        for role in Role
        if role is not Role.DEMO
        and runtime_config.boot_hash(edited, role) != runtime_config.boot_hash(Boot(), role)
    ]
    assert changed == [Role.SHARD]


def test_an_edit_of_live_changes_what_every_process_acknowledges_and_no_boot_hash() -> None:
    edited = Live(retrieval=Retrieval(max_passages=5))
    roles = [role for role in Role if role is not Role.DEMO]
    assert all(
        runtime_config.acknowledged_hash(Boot(), role, edited)
        != runtime_config.acknowledged_hash(Boot(), role, Live())
        for role in roles
    )


def test_the_hashes_of_today_are_those_of_tomorrow() -> None:
    assert (
        runtime_config.boot_hash(Boot(), Role.API),
        runtime_config.digest({"b": 1, "a": [1, "ü"]}),
    ) == ("v1:44136fa355b3678a", "v1:296089cff25d9c28")
