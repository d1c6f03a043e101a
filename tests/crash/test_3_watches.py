"""Events of the operator's watches: lost, late, twice, out of order, old ones again, silence."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from crash.harness import campaign
from crash.harness.campaign import EVENTS
from crash.harness.faults import Stream
from crash.harness.stage import Ground
from crash.harness.workflows import WORKFLOWS

#: Trials of a workflow without --all.
BOUNDED = 4


async def test_whatever_its_watches_tell_it_ends_as_an_undisturbed_one(
    faulted: str, ground: Ground, say: Callable[[str], None], choose: campaign.Choose
) -> None:
    workflow, ground = WORKFLOWS[faulted], replace(ground, repairs=True)
    expected = await campaign.reference(ground, workflow)
    everything = campaign.trials(workflow, expected, EVENTS, list(Stream), timing=choose.whole)
    report = await campaign.run(ground, workflow, expected, choose(everything, BOUNDED))
    say(report.line(f"{choose.words(everything, BOUNDED)} of watch events"))
    report.check()
