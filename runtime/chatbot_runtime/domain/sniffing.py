"""What a file is, told by its first bytes and never by its name. Pure."""

from __future__ import annotations

import codecs
import re
from typing import Final

from chatbot_core.errors import Invalid

TEXT: Final = "text/plain"
MARKDOWN: Final = "text/markdown"
PDF: Final = "application/pdf"

#: As many bytes as the decision looks at.
HEAD_BYTES: Final = 8192
_PDF_HEADER_WITHIN: Final = 1024
#: NUL bytes that a text may hold by accident; they are dropped.
_STRAY_NULS: Final = 8
_ALLOWED: Final = "a text, Markdown or PDF file"
_KNOWN: Final[dict[bytes, str]] = {
    b"PK\x03\x04": "a ZIP archive or an Office document",
    b"\xd0\xcf\x11\xe0": "an old Office document",
    b"\x7fELF": "a program",
    b"MZ": "a program",
    b"\x89PNG": "an image",
    b"\xff\xd8\xff": "an image",
    b"GIF8": "an image",
    b"\x1f\x8b": "a gzip archive",
    b"{\\rtf": "an RTF document",
}
_MARKDOWN_LINE: Final = re.compile(
    r"^(?:#{1,6} \S|```|\s{0,3}[-*+] \S|\|.*\|\s*$|> )|\[[^\]\n]+\]\([^)\n]+\)", re.MULTILINE
)


def media_type(head: bytes) -> str:
    """Return the media type of a file from its first 8 KiB.

    Raises Invalid with what the file seems to be, where it is none of the readable formats.
    """
    if b"%PDF-" in head[:_PDF_HEADER_WITHIN]:
        return PDF
    for magic, what in _KNOWN.items():
        if head.startswith(magic):
            raise Invalid("content", what, _ALLOWED)
    text = _decoded(head)
    if any(character < " " and character not in "\t\n\r\f\x1b\x00" for character in text):
        raise Invalid("content", "binary data", _ALLOWED)
    return MARKDOWN if _MARKDOWN_LINE.search(text) else TEXT


def encoding(head: bytes) -> str:
    """Return the codec to read a text with: by its byte order mark, else UTF-8, else Latin."""
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    try:
        codecs.getincrementaldecoder("utf-8")().decode(head)
    except UnicodeDecodeError:
        return "cp1252"
    return "utf-8-sig"


def _decoded(head: bytes) -> str:
    codec = encoding(head)
    if codec != "utf-16" and head.count(b"\x00") > max(_STRAY_NULS, len(head) // 100):
        raise Invalid("content", "binary data", _ALLOWED)
    decoder = codecs.getincrementaldecoder(codec)(errors="replace")
    text = decoder.decode(head)
    if codec == "cp1252" and text.count("\ufffd") > len(text) // 100:
        raise Invalid("content", "text in an unknown encoding", "text in UTF-8 or UTF-16")
    return text
