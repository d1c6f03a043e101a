"""Many trials of one workflow: the undisturbed runs first, then one fault at a time.

A trial is one turn of a workflow with one fault at one position. Positions are those that every
undisturbed run has shown; what only some have shown depends on timing, is tried with --all, and
counts where it came. A trial whose position does not come is repeated with a fresh operator. How
many statuses and Events there are depends on how pods become ready one by one: the last of them
may not come again, and the report says so. Every other position must.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from random import Random

from crash.harness import faults
from crash.harness.faults import Fault
from crash.harness.positions import Position
from crash.harness.stage import SETTLE_S, Ground, NotSettledError, Outcome, Stage, on_stage
from crash.harness.workflows import Workflow

STAGES = 5
#: Undisturbed runs: an even and an odd turn, each twice.
REFERENCES = 4
ATTEMPTS = 4


@dataclass(frozen=True, slots=True)
class Trial:
    """One fault at one position of one workflow; its text runs it alone."""

    workflow: str
    fault: Fault
    position: Position
    certain: bool = True

    def __str__(self) -> str:
        return f"{self.workflow} / {self.fault} / {self.position}"

    @classmethod
    def parse(cls, text: str) -> Trial:
        workflow, fault, position = text.split(" / ")
        return cls(workflow, faults.parse(fault), Position.parse(position))

    def command(self) -> str:
        return f".venv/bin/python -m pytest tests/crash -p no:randomly --trial '{self}'"


@dataclass(frozen=True, slots=True)
class Reference:
    """What the undisturbed runs have in common, and what only some of them had."""

    outcomes: tuple[Outcome, ...]  # of an even and of an odd turn
    certain: dict[str, tuple[Position, ...]]
    timing: dict[str, tuple[Position, ...]]


@dataclass(slots=True)
class Report:
    """What a campaign tested; `lines` is for people."""

    workflow: str
    tested: list[Trial] = field(default_factory=list)
    never_came: list[Trial] = field(default_factory=list)
    failed: dict[Trial, str] = field(default_factory=dict)

    @property
    def counted(self) -> int:
        """Return how many trials of certain positions were tested, or could not come again."""
        return sum(one.certain for one in (*self.tested, *self.excused))

    @property
    def excused(self) -> list[Trial]:
        return [one for one in self.never_came if one.certain and one.position.what.is_news]

    @property
    def missed(self) -> list[Trial]:
        return [one for one in self.never_came if one.certain and not one.position.what.is_news]

    def line(self, what: str) -> str:
        certain = [one for one in self.tested if one.certain]
        everything = len(certain) + len(self.failed) + len(self.missed) + len(self.excused)
        extra = len(self.tested) - len(certain)
        return (
            f"{self.workflow}: {what}: tested {len(certain)} of {everything}, "
            f"{len(self.excused)} statuses or Events did not come again, "
            f"{extra} more whose coming depends on timing, {len(self.failed)} failed"
        )

    def check(self) -> None:
        """Raise AssertionError with every failed trial and the command that runs it alone."""
        words = [f"{one}\n{told}\n  {one.command()}" for one, told in self.failed.items()]
        words += [f"{one}: never came" for one in self.missed]
        assert not words, "\n\n".join(words)


REQUESTS, WRITES, EVENTS = "requests", "writes", "events"


_known: dict[tuple[str, str], Reference] = {}


async def reference(ground: Ground, workflow: Workflow) -> Reference:
    """Return what undisturbed runs of a workflow do; they are run once a server."""
    key = ground.server.url, workflow.name
    if key not in _known:
        _known[key] = await _undisturbed(ground, workflow)
    return _known[key]


async def _undisturbed(ground: Ground, workflow: Workflow) -> Reference:
    """Run a workflow undisturbed, each time with a fresh operator."""
    outcomes: dict[int, Outcome] = {}
    seen: dict[str, list[set[Position]]] = {REQUESTS: [], WRITES: [], EVENTS: []}
    order: dict[Position, None] = {}
    async with AsyncExitStack() as stages:
        stage = await stages.enter_async_context(on_stage(ground, workflow))
        for number in range(REFERENCES):
            if number:
                stage = await _next(stages, ground, workflow, stage, fresh=True)
            await stage.begin()
            turn = 0 if workflow.once else number % 2
            found = await stage.settle(outcomes.get(turn))
            outcomes.setdefault(turn, found)
            requests = stage.proxy.requests.seen
            seen[REQUESTS].append({one for one in requests if not one.what.is_write})
            seen[WRITES].append({one for one in requests if one.what.is_write})
            seen[EVENTS].append(set(stage.proxy.events.seen))
            order |= dict.fromkeys([*requests, *stage.proxy.events.seen])
    certain = {name: _in(order, set.intersection(*runs)) for name, runs in seen.items()}
    timing = {
        name: _in(order, set.union(*runs) - set(certain[name])) for name, runs in seen.items()
    }
    return Reference(tuple(outcomes[turn] for turn in sorted(outcomes)), certain, timing)


def _in(order: Iterable[Position], chosen: set[Position]) -> tuple[Position, ...]:
    return tuple(one for one in order if one in chosen)


async def _next(
    stages: AsyncExitStack, ground: Ground, workflow: Workflow, stage: Stage, *, fresh: bool
) -> Stage:
    """Return the stage of the next turn: a new one where the workflow makes the object."""
    if workflow.once:
        await stages.aclose()
        return await stages.enter_async_context(on_stage(ground, workflow))
    if fresh:
        await stage.kill_and_restart()
        await stage.rest()
    return stage


def trials(
    workflow: Workflow,
    found: Reference,
    kind: str,
    kinds_of_fault: Sequence[Fault],
    *,
    timing: bool = False,
) -> list[Trial]:
    """Return every fault at every position, the certain ones first, `timing` others too."""
    other = found.timing[kind] if timing else ()
    return [
        Trial(workflow.name, fault, position, certain)
        for certain, positions in ((True, found.certain[kind]), (False, other))
        for position, fault in itertools.product(positions, kinds_of_fault)
    ]


async def run(
    ground: Ground,
    workflow: Workflow,
    expected: Reference,
    wanted: Sequence[Trial],
) -> Report:
    """Run the trials on a few stages at once."""
    report, waiting = Report(workflow.name), list(reversed(wanted))
    async with asyncio.TaskGroup() as group:
        for _ in range(min(STAGES, len(wanted))):
            group.create_task(_work(ground, workflow, expected, waiting, report))
    return report


async def _work(
    ground: Ground,
    workflow: Workflow,
    expected: Reference,
    waiting: list[Trial],
    report: Report,
) -> None:
    async with AsyncExitStack() as stages:
        stage: Stage | None = None
        while waiting:
            trial = waiting.pop()
            for attempt in range(ATTEMPTS if trial.certain else 2):
                if stage is None:
                    stage = await stages.enter_async_context(on_stage(ground, workflow))
                else:
                    stage = await _next(stages, ground, workflow, stage, fresh=attempt > 0)
                words = await _one(stage, expected, trial)
                if words or stage.proxy.fired:
                    break
            if words:
                report.failed[trial] = words
                await stages.aclose()
                stage = None
            elif stage is not None and stage.proxy.fired:
                report.tested.append(trial)
            else:
                report.never_came.append(trial)


@dataclass(frozen=True, slots=True)
class Noise:
    """One turn in which a share of all answers was broken."""

    workflow: str
    seed: int
    wrong: str
    amplification: float  # requests, as a multiple of those of an undisturbed turn
    ends: int  # of the process by itself

    def line(self) -> str:
        fine = f"{self.amplification:.1f} times the requests, {self.ends} ends of the process"
        words = self.wrong or fine
        return f"{self.workflow}: a share of answers wrong, --seed {self.seed}: {words}"


async def noise(
    ground: Ground, workflow: Workflow, expected: Reference, seeds: Sequence[int], share: float
) -> list[Noise]:
    """Make one turn for each seed with a share of all answers broken, then let it rest."""
    usual = len(expected.certain[REQUESTS]) + len(expected.certain[WRITES])
    found = []
    for seed in seeds:
        async with on_stage(ground, workflow) as stage:
            await stage.begin_noisy(seed, share)
            wrong = ""
            try:
                await stage.settle(expected.outcomes[0], within_s=2 * SETTLE_S)
            except NotSettledError as error:
                wrong = f"{error}\n  log: {stage.keep_log()}"
            asked = len(stage.proxy.requests.seen)
            found.append(Noise(workflow.name, seed, wrong, asked / usual, stage.ends))
    return found


@dataclass(frozen=True, slots=True)
class Choose:
    """Which of all trials run: every one with --all, else some, drawn from the seed."""

    seed: int
    whole: bool
    alone: Trial | None = None

    def __call__(self, everything: Sequence[Trial], count: int) -> list[Trial]:
        if self.alone is not None:
            return [one for one in everything if str(one) == str(self.alone)]
        if self.whole or len(everything) <= count:
            return list(everything)
        return Random(self.seed).sample(list(everything), count)

    def at_each(self, everything: Sequence[Trial]) -> list[Trial]:
        """Return, of all trials, one fault at each position; with --all every one."""
        if self.alone is not None or self.whole:
            return self(everything, len(everything))
        random = Random(self.seed)
        places: dict[Position, list[Trial]] = {}
        for one in everything:
            places.setdefault(one.position, []).append(one)
        return [random.choice(trials) for trials in places.values()]

    def words(self, everything: Sequence[Trial], count: int) -> str:
        chosen = len(self(everything, count))
        return f"{chosen} of {len(everything)} faults (--seed {self.seed})"

    def seeds(self, count: int) -> list[int]:
        return [self.seed + number for number in range(5 * count if self.whole else count)]


async def _one(stage: Stage, expected: Reference, trial: Trial) -> str:
    """Make one turn with a fault; return what was wrong with it, "" if nothing."""
    turn = stage.turn % len(expected.outcomes)
    await stage.begin_armed(trial.position, trial.fault)
    try:
        await stage.settle(expected.outcomes[turn])
        await stage.rest()
    except NotSettledError as error:
        return f"{error}\n  log: {stage.keep_log()}"
    return ""
