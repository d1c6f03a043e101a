"""Hostile files against the real, confined parser: a readable reason, and the next file works."""

from __future__ import annotations

import asyncio
import io
import os
import subprocess
import sys
import zlib
from pathlib import Path

import pypdf
import pytest

from chatbot_core.errors import Bug, Invalid
from chatbot_runtime.adapters import confinement, parsing
from chatbot_runtime.adapters.parsing import ConfinedParser
from chatbot_runtime.domain.model import ParsedText

ADAPTERS = Path(confinement.__file__).parent


def pdf(*objects: bytes) -> bytes:
    """Return a PDF of these objects, numbered from 1, the first being the catalogue."""
    out, offsets = b"%PDF-1.4\n", []
    for number, content in enumerate(objects, start=1):
        offsets.append(len(out))
        out += b"%d 0 obj\n" % number + content + b"\nendobj\n"
    table = b"".join(b"%010d 00000 n \n" % offset for offset in offsets)
    head = b"xref\n0 %d\n0000000000 65535 f \n" % (len(objects) + 1)
    trailer = b"trailer\n<< /Size %d /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF\n"
    return out + head + table + trailer % (len(objects) + 1, len(out))


def page_of(stream: bytes, filters: bytes = b"") -> bytes:
    return pdf(
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 9 9] /Contents 4 0 R"
        b" /Resources << /Font << /F1 5 0 R >> >> >>",
        b"<< /Length %d %s >>\nstream\n" % (len(stream), filters) + stream + b"\nendstream",
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
    )


def encrypted() -> bytes:
    writer = pypdf.PdfWriter()
    writer.add_blank_page(9, 9)
    writer.encrypt("secret", algorithm="RC4-128")
    out = io.BytesIO()
    writer.write(out)
    return out.getvalue()


def bomb() -> bytes:
    text = b"BT /F1 1 Tf (" + b"a" * 2_000_000 + b") Tj ET"
    return page_of(zlib.compress(text, 9), b"/Filter /FlateDecode")


def nested_bomb() -> bytes:
    inner = zlib.compress(zlib.compress(b"\0" * 1_500_000_000, 9), 9)
    return page_of(inner, b"/Filter [/FlateDecode /FlateDecode]")


def changed_child(folder: Path, monkeypatch: pytest.MonkeyPatch, *changes: tuple[str, str]) -> None:
    """Let the parser use a copy of its child with other constants."""
    for name in ("parse_child.py", "confinement.py"):
        text = (ADAPTERS / name).read_text()
        for old, new in changes:
            text = text.replace(old, new)
        (folder / name).write_text(text)
    monkeypatch.setattr(parsing, "_CHILD", folder / "parse_child.py")


CYCLE = pdf(
    b"<< /Type /Catalog /Pages 2 0 R >>",
    b"<< /Type /Pages /Kids [2 0 R 2 0 R] /Count 2 /Parent 2 0 R >>",
)


async def test_text_is_cleaned_of_what_the_database_cannot_hold() -> None:
    assert await ConfinedParser().parse(b"one\r\ntw\x00o\rthree") == ParsedText("one\ntwo\nthree")


async def test_other_encodings_are_read() -> None:
    parser = ConfinedParser()

    assert (await parser.parse("größe 中文".encode("utf-16"))).text == "größe 中文"
    assert (await parser.parse("größe".encode("cp1252"))).text == "größe"
    assert (await parser.parse("\ufeffwords".encode())).text == "words"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (encrypted(), "encrypted"),
        (CYCLE, "(cannot be read|no text|nested)"),
        (bomb(), "(bytes of text|memory|readable within)"),
        (b"%PDF-1.7\nnothing", "cannot be read"),
        (b"%PDF-1.7\n" + b"\xff" * 100_000, "cannot be read"),
        (page_of(b"BT ET"), "no text"),
        (b" \n ", "no text"),
        (b"PK\x03\x04" + b"\0" * 50, "ZIP"),
    ],
    ids=["encrypted", "cycle", "bomb", "empty-pdf", "noise", "blank", "white", "zip"],
)
async def test_a_bad_file_has_a_readable_reason_and_the_next_one_works(
    content: bytes, reason: str
) -> None:
    parser = ConfinedParser()

    with pytest.raises(Invalid, match=reason):
        await parser.parse(content)

    assert (await parser.parse(b"fine")).text == "fine"


async def test_a_bomb_of_gigabytes_ends_within_its_memory_and_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changed_child(tmp_path, monkeypatch, ("CPU_S: Final = 30", "CPU_S: Final = 2"))

    with pytest.raises(Invalid, match=r"(the parser ended|memory|cannot be read)"):
        await ConfinedParser().parse(nested_bomb())


async def test_several_files_at_once_do_not_mix() -> None:
    parser = ConfinedParser()
    texts = [f"text {n} " * 1000 for n in range(4)]

    parsed = await asyncio.gather(*(parser.parse(text.encode()) for text in texts))

    assert [one.text for one in parsed] == texts


async def test_a_parser_that_cannot_be_confined_refuses_to_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changed_child(
        tmp_path, monkeypatch, ('"x86_64": (', '"other": ('), ('"aarch64": (', '"another": (')
    )

    with pytest.raises(Bug, match="refuses to run unconfined"):
        await ConfinedParser().parse(b"text")


async def test_a_filter_that_lets_something_through_is_no_filter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changed_child(tmp_path, monkeypatch, ("_ERRNO: Final = ", "_ERRNO: Final = _ALLOW or "))

    with pytest.raises(Bug, match="open is still possible"):
        await ConfinedParser().parse(b"text")


@pytest.mark.parametrize(
    "attempt",
    [
        "open('/etc/hostname').read()",
        "open('/tmp/written', 'w')",
        "__import__('socket').socket()",
        "os.fork()",
        "os.execv('/bin/true', ['true'])",
        "os.kill(os.getppid(), 0)",
        "os.listdir('/')",
        "os.unlink('/tmp/none')",
        "ctypes.CDLL(None, use_errno=True).ptrace(0, 0, 0, 0) and os.close(99)",
    ],
)
def test_the_confined_process_may_do_nothing_but_compute(attempt: str) -> None:
    script = (
        f"import sys, os, ctypes, socket; sys.path.append({str(ADAPTERS)!r})\n"
        "import confinement; confinement.confine()\n"
        f"try:\n    {attempt}\nexcept OSError as error:\n    os.write(1, error.strerror.encode())\n"
    )

    done = subprocess.run(
        [sys.executable, "-I", "-c", script], capture_output=True, check=False, env=os.environ
    )

    assert done.stdout in {b"Operation not permitted", b"Bad file descriptor"}, done.stderr
