"""How a stage of the quick start can fail."""

from __future__ import annotations


class StageFailedError(Exception):
    """A stage failed; `code` is the exit code of what failed, where there was one."""

    def __init__(self, message: str, code: int = 1) -> None:
        super().__init__(message)
        self.code = code
