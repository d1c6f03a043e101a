"""Answers of the API server: refused, late, never, broken; once at each request, then often."""

from __future__ import annotations

from collections.abc import Callable

from crash.harness import campaign, faults
from crash.harness.campaign import REQUESTS, WRITES
from crash.harness.faults import Answer
from crash.harness.stage import Ground
from crash.harness.workflows import WORKFLOWS

SHARE = 0.2

#: Trials of a workflow without --all.
BOUNDED = 5


async def test_whatever_one_answer_is_it_ends_as_an_undisturbed_one(
    faulted: str, ground: Ground, say: Callable[[str], None], choose: campaign.Choose
) -> None:
    workflow = WORKFLOWS[faulted]
    expected = await campaign.reference(ground, workflow)
    everything = [
        trial
        for kind, usual in ((WRITES, tuple(Answer)), (REQUESTS, faults.READ_ANSWERS))
        for trial in campaign.trials(workflow, expected, kind, usual, timing=choose.whole)
    ]
    report = await campaign.run(ground, workflow, expected, choose(everything, BOUNDED))
    say(report.line(f"{choose.words(everything, BOUNDED)} of wrong answers"))
    report.check()


async def test_with_a_fifth_of_all_answers_wrong_it_ends_as_an_undisturbed_one(
    faulted: str, ground: Ground, say: Callable[[str], None], choose: campaign.Choose
) -> None:
    workflow = WORKFLOWS[faulted]
    expected = await campaign.reference(ground, workflow)
    noises = await campaign.noise(ground, workflow, expected, choose.seeds(1), SHARE)
    for one in noises:
        say(one.line())
    assert [one.line() for one in noises if one.wrong] == []
    # A storm of retries would ask many times more often than an undisturbed operator does.
    assert max(one.amplification for one in noises) < 4.0
