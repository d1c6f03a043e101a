"""What the person sees: one line an event, and one at least every ten seconds."""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections.abc import Iterator

HEARTBEAT_S = 8.0


class Report:
    """Prints lines behind the seconds since the start; safe to use from several threads."""

    def __init__(self) -> None:
        self.began_s = time.monotonic()
        self._said_s = self.began_s
        self._lock = threading.Lock()
        self._stages: dict[str, tuple[float, float]] = {}
        self._held: list[str] | None = None

    @property
    def elapsed_s(self) -> float:
        """Return the seconds since the start."""
        return time.monotonic() - self.began_s

    def line(self, text: str) -> None:
        """Print one line with the time before it."""
        with self._lock:
            words = f"[{self.elapsed_s:4.0f} s] {text}"
            if self._held is None:
                self._print(words)
            else:
                self._held.append(words)

    def plain(self, text: str) -> None:
        """Print text as it is: plans, answers, closing words."""
        with self._lock:
            self._print(text)

    def words(self, text: str) -> None:
        """Print a piece of a line: a streamed answer."""
        with self._lock:
            self._said_s = time.monotonic()
            sys.stdout.write(text)
            sys.stdout.flush()

    @contextlib.contextmanager
    def undisturbed(self) -> Iterator[None]:
        """Keep the lines of others back while an answer is streamed."""
        with self._lock:
            self._held = []
        try:
            yield
        finally:
            with self._lock:
                held, self._held = self._held, None
                for words in held:
                    self._print(words)

    @contextlib.contextmanager
    def stage(self, name: str, expected_s: float) -> Iterator[None]:
        """Name what is being done; heartbeats say how long it still takes."""
        self._stages[name] = (time.monotonic(), expected_s)
        try:
            yield
        finally:
            del self._stages[name]

    @contextlib.contextmanager
    def heartbeat(self) -> Iterator[None]:
        """Print a line about the running stages whenever nothing was printed for a while."""
        done = threading.Event()

        def beat() -> None:
            while not done.wait(1.0):
                if time.monotonic() - self._said_s >= HEARTBEAT_S:
                    self.plain(f"[{self.elapsed_s:4.0f} s] {self._running()}")

        thread = threading.Thread(target=beat, daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()

    def _running(self) -> str:
        now_s = time.monotonic()
        parts = [
            remaining(name, now_s - began_s, expected_s)
            for name, (began_s, expected_s) in list(self._stages.items())
        ]
        return "; ".join(parts) or "working"

    def _print(self, text: str) -> None:
        self._said_s = time.monotonic()
        sys.stdout.write(f"{text}\n")
        sys.stdout.flush()


def remaining(name: str, elapsed_s: float, expected_s: float) -> str:
    """Return what runs, for how long it did, and about how long it still will."""
    left_s = expected_s - elapsed_s
    if left_s > 0:
        return f"{name}: {elapsed_s:.0f} s, about {left_s:.0f} s left"
    return f"{name}: {elapsed_s:.0f} s, {-left_s:.0f} s longer than expected"
