"""Which release of the runtime an object runs: its image, and how releases follow each other."""

from __future__ import annotations

import re
from typing import Annotated, Final, Literal, NamedTuple

from pydantic import Field

from chatbot_core.errors import Invalid
from chatbot_core.v1alpha1.fields import Edit, Object, stated

#: One to three numbers, and what may stand behind them in the tag of an image.
VERSION_PATTERN: Final = r"^[0-9]{1,5}([.][0-9]{1,5}){0,2}(-[0-9A-Za-z][-0-9A-Za-z.]*)?$"
_NUMBERS: Final = re.compile(r"[0-9]+")

Version = Annotated[str, Field(pattern=VERSION_PATTERN, max_length=64)]


class RuntimeImage(Object):
    """The image of the runtime, where it is not the operator's choice for the version."""

    repository: str | None = stated(
        Edit.ROLLS_RUNTIME,
        "Image without tag, like registry.example/chatbot-runtime; unset takes the operator's.",
        default=None,
        pattern=r"^[a-zA-Z0-9][-a-zA-Z0-9._/]*(:[0-9]+/[-a-zA-Z0-9._/]+)?$",
        max_length=180,
    )
    digest: str | None = stated(
        Edit.ROLLS_RUNTIME,
        "Digest of the image; it wins over the tag, which is the version.",
        default=None,
        pattern=r"^sha256:[a-f0-9]{64}$",
        max_length=71,
    )
    pull_policy: Literal["Always", "IfNotPresent", "Never"] | None = stated(
        Edit.ROLLS_RUNTIME,
        "When nodes pull the image; unset takes the operator's policy.",
        default=None,
    )


class Release(NamedTuple):
    """The numbers of a version, in their order; missing ones are 0."""

    major: int
    minor: int
    patch: int

    @classmethod
    def of(cls, version: str) -> Release:
        """Return the numbers of a version; what follows `-` does not count.

        Raises Invalid for a text that is none.
        """
        if not re.match(VERSION_PATTERN, version):
            raise Invalid("version", version, "one to three numbers with dots between, like 0.3.1")
        numbers = [int(part) for part in _NUMBERS.findall(version.partition("-")[0])]
        return cls(*numbers, *[0] * (3 - len(numbers)))

    def is_next_to(self, other: Release) -> bool:
        """Return whether no minor release lies between the two, in either direction."""
        low, high = min(self, other), max(self, other)
        if low.major == high.major:
            return high.minor - low.minor <= 1
        return high.major - low.major == 1 and high.minor == 0


def repository_of(image: str) -> str:
    """Return an image without its tag and digest; a port of the registry stays."""
    name = image.partition("@")[0]
    path, colon, tag = name.rpartition(":")
    return path if colon and "/" not in tag else name


def image_of(stated_image: RuntimeImage | None, chosen: str, version: str) -> str:
    """Return the image to run: the chosen one of a version, unless the object names another."""
    if stated_image is None or (stated_image.repository is None and stated_image.digest is None):
        return chosen
    repository = stated_image.repository or repository_of(chosen)
    return (
        f"{repository}@{stated_image.digest}" if stated_image.digest else f"{repository}:{version}"
    )
