"""SIGKILL before, during and after every write of every workflow."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from crash.harness import campaign
from crash.harness.campaign import WRITES
from crash.harness.faults import Kill
from crash.harness.stage import Ground
from crash.harness.workflows import WORKFLOWS


@pytest.mark.parametrize("name", WORKFLOWS)
async def test_killed_around_every_write_it_ends_as_an_undisturbed_one(
    name: str, ground: Ground, say: Callable[[str], None], choose: campaign.Choose
) -> None:
    workflow = WORKFLOWS[name]
    expected = await campaign.reference(ground, workflow)
    everything = campaign.trials(workflow, expected, WRITES, list(Kill), timing=choose.whole)
    wanted = choose(everything, len(everything))
    report = await campaign.run(ground, workflow, expected, wanted)
    writes = len(expected.certain[WRITES])
    say(report.line(f"SIGKILL around {writes} writes x 3"))
    report.check()
    if choose.alone is None:
        assert report.counted == writes * 3
