"""The process that reads a stranger's file: `python -I parse_child.py MEDIA_TYPE CODEC`.

Bytes come in on standard input; lines of JSON go out on standard output: `{"part": text}`, with
`{"page": n}` before the parts of a page, at the end `{"end": true}` or `{"error": reason}`, or
`{"unconfined": reason}` where it refused to begin. Imports nothing of the package but its
neighbour `confinement`.
"""

from __future__ import annotations

import codecs
import encodings
import importlib
import io
import json
import os
import pkgutil
import sys
from pathlib import Path
from typing import Final

_BLOCK: Final = 1 << 20
_MAX_PAGES: Final = 5000
_PDF: Final = "application/pdf"


def main() -> int:
    """Read everything, give up every right, then parse."""
    media_type, codec = sys.argv[1:3]
    content = sys.stdin.buffer.read()
    sys.path.append(str(Path(__file__).parent))
    from confinement import Unconfined, confine  # type: ignore[import-not-found]  # by path

    _load_everything(media_type)
    try:
        confine()
    except Unconfined as error:
        _say({"unconfined": str(error)})
        return 1
    try:
        _read_pdf(content) if media_type == _PDF else _read_text(content, codec)
    except MemoryError:
        _say({"error": "the file needs more than 512 MB of memory to read"})
    except RecursionError:
        _say({"error": "the file is nested too deeply"})
    except Exception as error:  # noqa: BLE001 - whatever a stranger's file provokes is its reason
        _say({"error": _reason(error)})
    return 0


def _load_everything(media_type: str) -> None:
    """Import now what would be imported in the middle of a file: afterwards nothing opens."""
    for module in pkgutil.iter_modules(encodings.__path__):
        if module.name not in {"mbcs", "oem", "cp65001"}:
            importlib.import_module(f"encodings.{module.name}")
    if media_type != _PDF:
        return
    import pypdf

    for found in pkgutil.walk_packages(pypdf.__path__, "pypdf."):
        try:
            importlib.import_module(found.name)
        except ImportError:  # an optional back end that is not installed
            continue


def _read_text(content: bytes, codec: str) -> None:
    decoder = codecs.getincrementaldecoder(codec)(errors="replace")
    for at in range(0, len(content), _BLOCK):
        _say({"part": decoder.decode(content[at : at + _BLOCK])})
    _say({"part": decoder.decode(b"", final=True)})
    _say({"end": True})


def _read_pdf(content: bytes) -> None:
    import pypdf

    reader = pypdf.PdfReader(io.BytesIO(content), strict=False)
    if reader.is_encrypted and not reader.decrypt(""):
        _say({"error": "the PDF is encrypted; save a copy without a password"})
        return
    count = len(reader.pages)
    if count > _MAX_PAGES:
        _say({"error": f"the PDF has {count} pages; at most {_MAX_PAGES} are read"})
        return
    for number, page in enumerate(reader.pages, start=1):
        _say({"page": number})
        _say({"part": page.extract_text()})
    _say({"end": True})


def _reason(error: Exception) -> str:
    text = " ".join(str(error).split())[:200]
    return f"the file cannot be read: {type(error).__name__}" + (f": {text}" if text else "")


def _say(line: dict[str, object]) -> None:
    data = memoryview(json.dumps(line).encode() + b"\n")
    while data:
        data = data[os.write(1, data) :]


if __name__ == "__main__":
    sys.exit(main())
