"""What the data plane promises of people and processes, of PostgreSQL and of the fakes alike."""

from __future__ import annotations

from dataclasses import replace

import pytest
from fakes.planes import Plane

from chatbot_core.errors import Invalid, NotFound, Unauthenticated
from chatbot_runtime.domain.model import (
    MemberRow,
    User,
)

USER = User("u1", "ada", "w", admin=False, password_hash="hash")


async def test_users_and_their_sessions(plane: Plane) -> None:
    await plane.accounts.put_user(USER)
    await plane.accounts.put_user(replace(USER, user_id="u2", username="Bob"))
    await plane.accounts.put_user(replace(USER, user_id="u3", username="eve", workspace="v"))
    with pytest.raises(Invalid, match="username"):
        await plane.accounts.put_user(replace(USER, user_id="u4"))
    assert await plane.accounts.user("ada") == USER
    assert [user.username for user in await plane.accounts.users("w")] == ["Bob", "ada"]
    now_s = 4_000_000_000.0
    await plane.accounts.open_session(b"s", "u1", now_s + 10)
    assert await plane.accounts.session_user(b"s", now_s) == USER
    with pytest.raises(Unauthenticated):
        await plane.accounts.session_user(b"s", now_s + 11)
    await plane.accounts.close_session(b"s")
    await plane.accounts.close_session(b"s")
    with pytest.raises(Unauthenticated):
        await plane.accounts.session_user(b"s", now_s)
    with pytest.raises(NotFound):
        await plane.accounts.user("nobody")
    with pytest.raises(NotFound):
        await plane.accounts.open_session(b"t", "nobody", now_s)


async def test_the_first_admin_follows_its_secret(plane: Plane) -> None:
    admin = replace(USER, admin=True)
    await plane.accounts.ensure_admin(admin)
    await plane.accounts.ensure_admin(replace(admin, user_id="u9", password_hash="new"))
    assert await plane.accounts.user("ada") == replace(admin, password_hash="new")
    await plane.accounts.ensure_admin(replace(admin, username="grace"))
    assert await plane.accounts.users("w") == (replace(admin, username="grace"),)


async def test_a_rotated_password_ends_the_sessions_of_its_user_alone(plane: Plane) -> None:
    await plane.accounts.ensure_admin(replace(USER, admin=True))
    other = replace(USER, user_id="u2", username="bob")
    await plane.accounts.put_user(other)
    await plane.accounts.open_session(b"s", "u1", 4_000_000_000.0)
    await plane.accounts.open_session(b"t", "u2", 4_000_000_000.0)
    await plane.accounts.ensure_admin(replace(USER, admin=True, password_hash="new"))
    with pytest.raises(Unauthenticated):
        await plane.accounts.session_user(b"s", 1.0)
    assert await plane.accounts.session_user(b"t", 1.0) == other


def member(role: str, name: str) -> MemberRow:
    return MemberRow(
        role=role,
        name=name,
        address="127.0.0.1:1",
        started_s=1_700_000_000.5,
        version="0.1.0",
        config_hash="v1:00",
        epoch=1,
        ready=True,
        reason="",
        shard=3,
        report={"rows": 5},
    )


async def test_members_are_those_that_were_heard_lately(plane: Plane) -> None:
    for row in (member("shard", "b"), member("api", "z"), member("shard", "a")):
        await plane.members.beat(row)
    await plane.members.beat(replace(member("shard", "b"), ready=False, reason="loading"))
    live = [replace(row, age_s=0.0) for row in await plane.members.live(60)]
    assert live == [
        member("api", "z"),
        member("shard", "a"),
        replace(member("shard", "b"), ready=False, reason="loading"),
    ]
    await plane.members.leave("api", "z")
    assert [row.name for row in await plane.members.live(60)] == ["a", "b"]
    assert await plane.members.live(0) == ()


async def test_a_setting_is_read_as_it_was_written(plane: Plane) -> None:
    assert await plane.settings.read("self_test") is None
    await plane.settings.write("self_test", {"wanted": "a"})
    await plane.settings.write("self_test", {"wanted": "b", "passed": True})
    assert await plane.settings.read("self_test") == {"wanted": "b", "passed": True}
