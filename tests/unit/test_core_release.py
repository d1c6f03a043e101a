"""Versions in their order, and the image of one."""

from __future__ import annotations

import pytest

from chatbot_core.errors import Invalid
from chatbot_core.v1alpha1.release import Release, RuntimeImage, image_of, repository_of


@pytest.mark.parametrize(
    ("version", "numbers"),
    [("3", (3, 0, 0)), ("0.3", (0, 3, 0)), ("1.2.30", (1, 2, 30)), ("0.4.1-rc.2", (0, 4, 1))],
)
def test_a_version_is_read_as_numbers(version: str, numbers: tuple[int, int, int]) -> None:
    assert Release.of(version) == numbers


@pytest.mark.parametrize("version", ["", "dev", "v0.3", "0.3.", "1.2.3.4", "0.3 ", "0.3-", "-1"])
def test_what_is_no_version_is_refused_by_name(version: str) -> None:
    with pytest.raises(Invalid, match="version"):
        Release.of(version)


@pytest.mark.parametrize(
    ("one", "other", "next_to"),
    [
        ("0.3", "0.3.9", True),
        ("0.3", "0.4", True),
        ("0.3", "0.5", False),
        ("0.9", "1.0", True),
        ("0.9", "1.1", False),
        ("0.9", "2.0", False),
    ],
)
def test_neighbours_have_no_minor_release_between_them(
    one: str, other: str, *, next_to: bool
) -> None:
    assert Release.of(one).is_next_to(Release.of(other)) is next_to
    assert Release.of(other).is_next_to(Release.of(one)) is next_to


@pytest.mark.parametrize(
    ("image", "repository"),
    [
        ("runtime", "runtime"),
        ("registry.example:5000/team/runtime:0.3", "registry.example:5000/team/runtime"),
        ("registry.example:5000/runtime", "registry.example:5000/runtime"),
        (f"a/b:1@sha256:{'0' * 64}", "a/b"),
    ],
)
def test_a_repository_is_an_image_without_tag_and_digest(image: str, repository: str) -> None:
    assert repository_of(image) == repository


def test_a_digest_wins_over_the_version_and_a_repository_over_the_operators() -> None:
    digest = f"sha256:{'0' * 64}"
    chosen = "registry.example/runtime:0.3"
    assert image_of(None, chosen, "0.3") == chosen
    assert image_of(RuntimeImage(pull_policy="Always"), chosen, "0.3") == chosen
    assert image_of(RuntimeImage(repository="other"), chosen, "0.3") == "other:0.3"
    assert image_of(RuntimeImage(digest=digest), chosen, "0.3") == (
        f"registry.example/runtime@{digest}"
    )
