from __future__ import annotations

import pytest

from chatbot_core import errors


def _all(root: type[errors.ChatbotError]) -> list[type[errors.ChatbotError]]:
    return [root, *(kind for child in root.__subclasses__() for kind in _all(child))]


@pytest.mark.parametrize("kind", _all(errors.ChatbotError)[1:], ids=lambda kind: kind.__name__)
def test_every_error_has_a_status_and_an_exit_code(kind: type[errors.ChatbotError]) -> None:
    assert (kind in errors.HTTP_STATUS, kind in errors.EXIT_CODE) == (True, True)


def test_the_nearest_parent_decides() -> None:
    class Expired(errors.Unauthenticated):
        pass

    assert (errors.http_status(Expired()), errors.exit_code(Expired())) == (401, 3)


def test_an_invalid_value_is_named_with_what_is_allowed() -> None:
    error = errors.Invalid("retrieval.shards", 0, "1 to 100")
    assert str(error) == "retrieval.shards: 0 is not allowed; must be 1 to 100"


def test_a_long_value_is_cut_to_a_line() -> None:
    assert len(str(errors.Invalid("question", "x" * 10_000, "shorter"))) < 130


def test_a_full_queue_says_when_to_come_back() -> None:
    assert str(errors.Busy("inference", 7.4)) == "inference is busy; retry in 7 s"
