from __future__ import annotations

from pathlib import Path

import pytest

from images import cache


@pytest.fixture(autouse=True)
def own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(cache, "REPOSITORY", tmp_path)


def test_a_tag_is_twelve_digits_and_repeats_for_equal_inputs(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("x = 1")
    first = cache.tag_of(["1.0"], [tmp_path / "a.py"])
    assert len(first) == cache.TAG_LENGTH
    assert cache.tag_of(["1.0"], [tmp_path / "a.py"]) == first


@pytest.mark.parametrize("change", ["word", "content", "name", "mode", "new file"])
def test_a_tag_follows_every_input(tmp_path: Path, change: str) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "a.py").write_text("x = 1")
    before = cache.tag_of(["1.0"], [source])
    word = "1.0"
    match change:
        case "word":
            word = "1.1"
        case "content":
            (source / "a.py").write_text("x = 2")
        case "name":
            (source / "a.py").rename(source / "b.py")
        case "mode":
            (source / "a.py").chmod(0o755)
        case _:
            (source / "b.py").write_text("")
    assert cache.tag_of([word], [source]) != before


def test_two_words_are_not_the_same_as_one(tmp_path: Path) -> None:
    assert cache.tag_of(["a", "b"]) != cache.tag_of(["a\nword 1 b"])


def test_bytecode_beside_the_source_changes_no_tag(tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    before = cache.tag_of([], [tmp_path / "source"])
    (tmp_path / "source/__pycache__").mkdir()
    (tmp_path / "source/__pycache__/a.cpython-311.pyc").write_bytes(b"bytecode")
    assert cache.tag_of([], [tmp_path / "source"]) == before


def test_scratch_of_an_interrupted_build_goes_at_the_next_one() -> None:
    left = cache.folder() / ".staging-runtime-abc"
    left.mkdir()
    (left / "half").write_text("half")
    with cache.staging("runtime") as scratch:
        assert [path.name for path in cache.folder().glob(".staging-*")] == [scratch.name]
    assert list(cache.folder().iterdir()) == []


def test_the_two_newest_builds_of_a_name_are_kept() -> None:
    for number in range(4):
        draft = cache.folder() / "draft"
        draft.write_text(str(number))
        cache.publish(draft, "runtime", f"{number:012d}", ".tar")
    other = cache.folder() / "draft"
    other.write_text("other")
    cache.publish(other, "operator", "0" * 12, ".tar")
    assert sorted(path.name for path in cache.folder().iterdir()) == [
        "operator-000000000000.tar",
        "runtime-000000000002.tar",
        "runtime-000000000003.tar",
    ]
