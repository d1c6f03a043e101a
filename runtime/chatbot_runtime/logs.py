"""Structured logs: one JSON object a line, or readable lines on a terminal.

A call names a constant message and passes its values through `extra`, so that lines can be
counted by message: `log.info("document indexed", extra={"chunks": 12})`. Keys that `logging`
itself uses (`name`, `args`, `module`, ...) are refused by the standard library.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final, TextIO

_OWN: Final = frozenset(
    (*vars(logging.LogRecord("", 0, "", 0, "", (), None)), "message", "asctime", "taskName"),
)
#: Libraries whose lower levels repeat, line by line, what our own metrics count.
_QUIET: Final = ("uvicorn", "uvicorn.error", "httpx", "httpcore", "botocore", "asyncio", "faiss")


def extras(record: logging.LogRecord) -> dict[str, Any]:
    """Return the key-values that the caller passed through `extra`."""
    return {key: value for key, value in vars(record).items() if key not in _OWN}


class JsonFormatter(logging.Formatter):
    """A record as one line of JSON; `constants` (role, process) stand on every line."""

    def __init__(self, constants: Mapping[str, str]) -> None:
        super().__init__()
        self._constants = dict(constants)

    def format(self, record: logging.LogRecord) -> str:
        """Return the line; values that JSON does not know are written as their `str`."""
        line: dict[str, Any] = {
            "at": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "message": record.getMessage(),
            "logger": record.name,
            **self._constants,
            **extras(record),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str, ensure_ascii=False)


class TerminalFormatter(logging.Formatter):
    """A record as a line for a person: time, role, message, key=value."""

    def __init__(self, role: str) -> None:
        super().__init__()
        self._role = role

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, with the traceback below it where there is one."""
        at = datetime.fromtimestamp(record.created, UTC).strftime("%H:%M:%S.%f")[:-3]
        pairs = "".join(f" {key}={value}" for key, value in extras(record).items())
        line = f"{at} {record.levelname[0]} {self._role}: {record.getMessage()}{pairs}"
        if record.exc_info:
            line += "\n" + self.formatException(record.exc_info)
        return line


def configure(role: str, process: str, stream: TextIO | None = None) -> None:
    """Send all logs of this process to `stream` (standard error), INFO and above.

    JSON, unless the stream is a terminal.
    """
    out = stream or sys.stderr
    handler = logging.StreamHandler(out)
    handler.setFormatter(
        TerminalFormatter(role)
        if out.isatty()
        else JsonFormatter({"role": role, "process": process})
    )
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    for name in _QUIET:
        logging.getLogger(name).setLevel(logging.WARNING)
