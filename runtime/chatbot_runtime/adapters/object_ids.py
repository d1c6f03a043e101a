"""Object ids: `<workspace>/<random>`, safe as a path below a folder and as a key of a bucket."""

from __future__ import annotations

import re
from typing import Final

from chatbot_core.errors import Invalid

#: What the service names an upload: its workspace and 128 random bits.
_OURS: Final = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,127}/[0-9a-f]{32}", re.ASCII)
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


def is_ours(key: str) -> bool:
    """Return whether a key below a store's prefix has the form that this service gives its own."""
    return _OURS.fullmatch(key) is not None
