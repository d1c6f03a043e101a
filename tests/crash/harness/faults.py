"""What can go wrong at a position."""

from __future__ import annotations

from enum import StrEnum


class Kill(StrEnum):
    """When SIGKILL strikes, seen from the API server."""

    BEFORE = "kill-before"  # the request never reached it
    DURING = "kill-during"  # it did what was asked, and nobody was told
    AFTER = "kill-after"  # the operator was told, and did nothing more


class Answer(StrEnum):
    """What the operator gets in place of its answer."""

    CONFLICT = "409"
    INVALID = "422"
    BUSY = "429"
    BUSY_FOR_A_SECOND = "429-retry-after"
    BROKEN = "500"
    DONE_AND_BROKEN = "500-done"  # the server did what was asked, and said that it failed
    OVERLOADED = "503"
    UNAUTHORIZED = "401"
    NOTHING = "timeout"  # never forwarded, never answered
    DONE_AND_NOTHING = "timeout-done"  # forwarded, never answered
    RESET = "reset"  # forwarded, the connection breaks in the middle of the body
    TRUNCATED = "truncated"  # forwarded, half of the JSON arrives as if it were whole


class Stream(StrEnum):
    """What happens to one event of a watch."""

    DROP = "drop"
    DELAY = "delay"
    DUPLICATE = "duplicate"
    REORDER = "reorder"
    REPLAY = "replay"  # all events of this watch come once more, from its beginning
    EXPIRE = "410"
    STALL = "stall"  # from here on the watch is silent, and nobody closes it


Fault = Kill | Answer | Stream

#: No API server gives these to a read.
OF_WRITES = frozenset({Answer.CONFLICT, Answer.INVALID})
READ_ANSWERS = tuple(one for one in Answer if one not in OF_WRITES)
STATUS = {
    Answer.CONFLICT: (409, "Conflict"),
    Answer.INVALID: (422, "Invalid"),
    Answer.BUSY: (429, "TooManyRequests"),
    Answer.BUSY_FOR_A_SECOND: (429, "TooManyRequests"),
    Answer.BROKEN: (500, "InternalError"),
    Answer.DONE_AND_BROKEN: (500, "InternalError"),
    Answer.OVERLOADED: (503, "ServiceUnavailable"),
    Answer.UNAUTHORIZED: (401, "Unauthorized"),
}
#: The API server carries out the request under these.
FORWARDED = frozenset(
    {Answer.DONE_AND_BROKEN, Answer.DONE_AND_NOTHING, Answer.RESET, Answer.TRUNCATED}
)


def parse(text: str) -> Fault:
    for family in (Kill, Answer, Stream):
        if text in set(family):
            return family(text)
    raise ValueError(text)
