"""Every error this product raises on purpose.

    ChatbotError
    ├── Invalid          somebody stated a value that is not allowed       422, exit 2
    │   └── TooLarge     ... because it is too big                         413, exit 2
    ├── Denied           known caller, not allowed                         403, exit 3
    │   └── Unauthenticated  caller not known                              401, exit 3
    ├── NotFound         the thing does not exist for this caller          404, exit 4
    ├── Busy             a bounded queue is full; try again later          503, exit 5
    │   └── Limited          ... because this caller asks too often            429, exit 5
    ├── Unavailable      an outside world did not answer; retried          503, exit 6
    └── Bug              a promise of our own code is broken               500, exit 70

Only ``Unavailable`` is ever retried. Messages name the field, the value, what is allowed and the
next step; they never hold secrets or addresses of other tenants.
"""

from __future__ import annotations

from typing import Final


class ChatbotError(Exception):
    """Root of the tree; never raised itself."""


class Invalid(ChatbotError):
    """A stated value is not allowed."""

    def __init__(self, field: str, value: object, allowed: str) -> None:
        shown = repr(value)
        shown = shown if len(shown) <= 80 else shown[:77] + "..."  # noqa: PLR2004 - one screen line
        super().__init__(f"{field}: {shown} is not allowed; must be {allowed}")
        self.field = field
        self.value = value
        self.allowed = allowed


class TooLarge(Invalid):
    """A stated value is larger than its bound."""


class Denied(ChatbotError):
    """The caller is known and may not do this."""


class Unauthenticated(Denied):
    """The caller is not known: no session, an ended one, or a wrong password."""


class NotFound(ChatbotError):
    """The thing does not exist, or not for this caller (the two are never told apart)."""


class Busy(ChatbotError):
    """A bounded queue is full or a wait took too long; ``retry_after_s`` says when to come back."""

    def __init__(self, what: str, retry_after_s: float) -> None:
        super().__init__(f"{what} is busy; retry in {retry_after_s:.0f} s")
        self.retry_after_s = retry_after_s


class Limited(Busy):
    """This caller alone asks too often; others are served."""


class Unavailable(ChatbotError):
    """An outside world (database, shard, Ollama, S3, Kubernetes) gave no usable answer.

    ``named_wait_s`` is the wait that it asked for, 0 where it named none.
    """

    def __init__(self, what: str, reason: str = "", retry_after_s: float | None = None) -> None:
        super().__init__(f"{what} is unavailable" + (f": {reason}" if reason else ""))
        self.what = what
        self.retry_after_s = 1.0 if retry_after_s is None else retry_after_s
        self.named_wait_s = retry_after_s or 0.0


class Bug(ChatbotError):
    """A promise of our own code is broken; the message is for the developers."""


HTTP_STATUS: Final[dict[type[ChatbotError], int]] = {
    TooLarge: 413,
    Invalid: 422,
    Unauthenticated: 401,
    Denied: 403,
    NotFound: 404,
    Limited: 429,
    Busy: 503,
    Unavailable: 503,
    Bug: 500,
}

EXIT_CODE: Final[dict[type[ChatbotError], int]] = {
    TooLarge: 2,
    Invalid: 2,
    Unauthenticated: 3,
    Denied: 3,
    NotFound: 4,
    Limited: 5,
    Busy: 5,
    Unavailable: 6,
    Bug: 70,
}


def http_status(error: ChatbotError) -> int:
    """Return the HTTP status of an error: its own class's, else the nearest parent's."""
    return _nearest(HTTP_STATUS, error)


def exit_code(error: ChatbotError) -> int:
    """Return the process exit code of an error: its own class's, else the nearest parent's."""
    return _nearest(EXIT_CODE, error)


def _nearest(table: dict[type[ChatbotError], int], error: ChatbotError) -> int:
    for kind in type(error).__mro__:
        if kind in table:
            return table[kind]
    return table[Bug]
