"""What a run leaves for the next: how far it came and how long each part took."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from localkube.layout import instance

#: The instance that `hack/cluster` means where nothing is said.
DEFAULT_NAME = "chatbot"


@dataclass(frozen=True, slots=True)
class State:
    """Progress of the current attempt; `finished` means that the last one came to its end.

    `embedded_answered` is kept only while an attempt is unfinished: a killed run continues behind
    it. `seconds` are the last durations by stage. `demo_pid` is a child that may still run.
    """

    embedded_answered: bool = False
    finished: bool = False
    provider: str = ""
    demo_pid: int = 0
    seconds: Mapping[str, float] = field(default_factory=dict)


def folder(name: str, environment: Mapping[str, str] = os.environ) -> Path:
    """Return where the state and the embedded service's data are kept.

    The dot keeps it apart from the folders of clusters: no instance has one in its name.
    """
    return instance(name, environment).state.parent / "quickstart.state" / name


def load(path: Path) -> State:
    """Return what the last run left; a broken or older file counts as none."""
    try:
        return State(**json.loads((path / "state.json").read_text()))
    except (OSError, ValueError, TypeError):
        return State()


def save(path: Path, state: State) -> None:
    """Replace the file in one step, so that a kill never leaves half of it."""
    path.mkdir(parents=True, exist_ok=True)
    draft = path / "state.json.new"
    draft.write_text(json.dumps(asdict(state), indent=1))
    draft.replace(path / "state.json")


class Book:
    """The state file in use: every change is written at once."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.state = load(path)
        if self.state.finished:
            self.note(embedded_answered=False, finished=False)

    def note(self, **changes: object) -> None:
        """Change fields and write the file."""
        self.state = replace(self.state, **changes)  # type: ignore[arg-type]  # fields by name
        save(self.path, self.state)

    def took(self, stage: str, seconds: float) -> None:
        """Remember how long a stage took, for the next plan."""
        self.note(seconds={**self.state.seconds, stage: round(seconds, 1)})
