"""People: the first admin, users made by the admin, passwords, sessions."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import re
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import argon2

from chatbot_core import names
from chatbot_core.errors import (
    ChatbotError,
    Denied,
    Invalid,
    Limited,
    NotFound,
    Unauthenticated,
)
from chatbot_runtime.domain.admission import BoundedQueue
from chatbot_runtime.domain.model import Caller, User
from chatbot_runtime.ports import Accounts, Clock, ReadSecret
from chatbot_runtime.services import slots

log = logging.getLogger(__name__)

SESSION_S: Final = 24 * 3600
PASSWORD_MIN_CHARACTERS: Final = 10
PASSWORD_MAX_CHARACTERS: Final = 256
_USERNAME: Final = re.compile(r"[a-z0-9][a-z0-9._@-]{0,62}")
_ADMIN_ID: Final = "admin"
_ADMIN_POLL_S: Final = 10.0

#: Tries a username gets at once, and the seconds after which one more is granted.
LOGIN_BURST: Final = 5
LOGIN_REFILL_S: Final = 6.0
_BUCKETS_KEPT: Final = 10_000

#: OWASP Password Storage Cheat Sheet: argon2id with 19 MiB, two passes, one lane.
HASHER: Final = argon2.PasswordHasher(time_cost=2, memory_cost=19 * 1024, parallelism=1)
#: Hashes that run at once (19 MiB each) and callers that may wait for one.
_HASHING_SLOTS: Final = 2
_HASHING_WAITING: Final = 64


@dataclass(slots=True)
class _Bucket:
    tokens: float
    at_s: float


class LoginLimit:
    """A token bucket a username, in memory; the least recently used are forgotten."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._buckets: OrderedDict[str, _Bucket] = OrderedDict()

    def take(self, username: str) -> None:
        """Count one try. Raises Limited with the seconds until the next is granted."""
        now_s = self._clock.monotonic_s()
        bucket = self._buckets.setdefault(username, _Bucket(LOGIN_BURST, now_s))
        self._buckets.move_to_end(username)
        if len(self._buckets) > _BUCKETS_KEPT:
            self._buckets.popitem(last=False)
        bucket.tokens = min(LOGIN_BURST, bucket.tokens + (now_s - bucket.at_s) / LOGIN_REFILL_S)
        bucket.at_s = now_s
        if bucket.tokens < 1:
            raise Limited("the login", (1 - bucket.tokens) * LOGIN_REFILL_S)
        bucket.tokens -= 1

    def forget(self, username: str) -> None:
        """Give a username its full burst back: it logged in."""
        self._buckets.pop(username, None)


class AccountService:
    """Logs people in and knows who a bearer token belongs to. `random_id` makes 256-bit tokens."""

    def __init__(self, accounts: Accounts, clock: Clock, random_id: Callable[[], str]) -> None:
        self._accounts = accounts
        self._clock = clock
        self._random_id = random_id
        self._limit = LoginLimit(clock)
        self._hashing = BoundedQueue("the login", _HASHING_SLOTS, _HASHING_WAITING, max_wait_s=10)
        self._nobody = ""

    async def login(self, username: str, password: str) -> tuple[str, float]:
        """Return a bearer token and when it ends (Unix seconds).

        Raises Unauthenticated in the same time whether the user or the password is wrong,
        Limited after too many tries, Busy when too many log in.
        """
        self._limit.take(username)
        user = await self._find(username)
        if not await self._verified(user, password) or user is None:
            raise Unauthenticated("username or password is wrong")
        self._limit.forget(username)
        token = self._random_id()
        expires_s = self._clock.unix_s() + SESSION_S
        await self._accounts.open_session(_hashed(token), user.user_id, expires_s)
        return token, expires_s

    async def logout(self, token: str) -> None:
        """End a session; no effect where it is gone."""
        await self._accounts.close_session(_hashed(token))

    async def caller(self, token: str) -> Caller:
        """Return who a bearer token belongs to. Raises Unauthenticated."""
        user = await self._accounts.session_user(_hashed(token), self._clock.unix_s())
        return Caller(user.user_id, user.username, user.workspace, user.admin)

    async def create(self, by: Caller, username: str, password: str, admin: bool) -> User:
        """Make a user in the admin's workspace. Raises Denied, or Invalid naming the field."""
        _require_admin(by)
        _check_username(username)
        _check_password(password)
        user_id = self._random_id()[:22]
        user = User(user_id, username, by.workspace, admin, await self._hashed_password(password))
        await self._accounts.put_user(user)
        return user

    async def users(self, by: Caller) -> tuple[User, ...]:
        """Return the users of the admin's workspace. Raises Denied."""
        _require_admin(by)
        return await self._accounts.users(by.workspace)

    async def ensure_admin(self, username: str, password: str) -> None:
        """Make or update the first admin. Raises Invalid where the Secret's values are unusable."""
        _check_username(username)
        _check_password(password)
        known = await self._find(username)
        if known is not None and known.admin and await self._verified(known, password):
            return
        hashed = await self._hashed_password(password)
        workspace = names.DEFAULT_WORKSPACE
        await self._accounts.ensure_admin(User(_ADMIN_ID, username, workspace, True, hashed))
        log.info("first admin ensured", extra={"username": username})

    async def follow_admin_secret(self, secret: ReadSecret) -> None:
        """Ensure the first admin now and whenever its Secret changes, until cancelled."""
        done: tuple[str, str] | None = None
        told = ""
        while True:
            try:
                wanted = (secret(names.FILE_ADMIN_USERNAME), secret(names.FILE_ADMIN_PASSWORD))
                if wanted != done:
                    await self.ensure_admin(*wanted)
                    done, told = wanted, ""
            except ChatbotError as error:
                why = "password refused" if isinstance(error, Invalid) else str(error)
                if why != told:
                    log.warning("first admin not ensured yet", extra={"why": why})
                    told = why
            await asyncio.sleep(_ADMIN_POLL_S if done else 1.0)

    async def _find(self, username: str) -> User | None:
        try:
            return await self._accounts.user(username)
        except NotFound:
            return None

    async def _verified(self, user: User | None, password: str) -> bool:
        """Compare in the time of one hash, also for nobody."""
        if not self._nobody:
            self._nobody = await self._hashed_password(self._random_id())
        expected = self._nobody if user is None else user.password_hash
        candidate = password[: PASSWORD_MAX_CHARACTERS + 1]
        async with slots.slot(self._hashing, self._clock):
            return await asyncio.to_thread(_matches, expected, candidate)

    async def _hashed_password(self, password: str) -> str:
        async with slots.slot(self._hashing, self._clock):
            return await asyncio.to_thread(HASHER.hash, password)


def _matches(expected: str, password: str) -> bool:
    try:
        return HASHER.verify(expected, password)
    except (argon2.exceptions.VerificationError, argon2.exceptions.InvalidHashError):
        return False


def _hashed(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()


def _require_admin(caller: Caller) -> None:
    if not caller.admin:
        raise Denied("only an admin may do this")


def _check_username(username: str) -> None:
    if not _USERNAME.fullmatch(username):
        allowed = "1 to 63 lower-case letters, digits or . _ @ -, beginning with a letter or digit"
        raise Invalid("username", username, allowed)


def _check_password(password: str) -> None:
    if not PASSWORD_MIN_CHARACTERS <= len(password) <= PASSWORD_MAX_CHARACTERS:
        bounds = f"{PASSWORD_MIN_CHARACTERS} to {PASSWORD_MAX_CHARACTERS} characters long"
        raise Invalid("password", f"{len(password)} characters", bounds)
