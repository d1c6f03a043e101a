"""Object ids: `<workspace>/<random>`, safe as a path below a folder and as a key of a bucket."""

from __future__ import annotations

import re
from typing import Final

from chatbot_core.errors import Invalid

_SEGMENT: Final = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,127}", re.ASCII)
_SEGMENTS_MAX: Final = 4


def checked(object_id: str) -> str:
    """Return the id unchanged. Raises Invalid for anything that is no plain relative path."""
    segments = object_id.split("/")
    if len(segments) > _SEGMENTS_MAX or not all(_SEGMENT.fullmatch(one) for one in segments):
        raise Invalid(
            "object_id", object_id, "letters, digits, '.', '_', '-' in parts separated by '/'"
        )
    return object_id
