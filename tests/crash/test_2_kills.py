"""SIGKILL before, during and after every write of every workflow."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from crash.harness import campaign
from crash.harness.campaign import WRITES
from crash.harness.faults import Kill
from crash.harness.stage import Ground
from crash.harness.workflows import WORKFLOWS

#: Those with the most writes: each is met once by default, at a moment drawn; with --all thrice.
LONG = frozenset({"boot", "create", "delete"})


@pytest.mark.parametrize("name", WORKFLOWS)
async def test_killed_around_every_write_it_ends_as_an_undisturbed_one(
    name: str, ground: Ground, say: Callable[[str], None], choose: campaign.Choose
) -> None:
    workflow = WORKFLOWS[name]
    expected = await campaign.reference(ground, workflow)
    everything = campaign.trials(workflow, expected, WRITES, list(Kill), timing=choose.whole)
    once = name in LONG and not choose.whole
    wanted = choose.at_each(everything) if once else choose(everything, len(everything))
    report = await campaign.run(ground, workflow, expected, wanted)
    writes, moments = len(expected.certain[WRITES]), 1 if once else len(Kill)
    say(report.line(f"SIGKILL around {writes} writes x {moments} (--seed {choose.seed})"))
    report.check()
    if choose.alone is None:
        assert report.counted == writes * moments
