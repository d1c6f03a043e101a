"""What is done to the operator, phase by phase, and what each phase measured."""

from __future__ import annotations

import asyncio
import math
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

from chatbot_core import names
from chatbot_operator.kinds import Ref
from chatbot_operator.store import OwnerKey
from operatorbench import fleet
from operatorbench.audit import AuditLog, Write, by_verb
from operatorbench.fleet import View, until
from operatorbench.runtimes import Runtimes
from operatorbench.subject import Reading, Subject, lag_s

Figures = dict[str, float]

#: Asked at their own pace, whatever a pass does: they are counted with the no-ops.
_POLLS: Final = frozenset({("get", "Secret")})
_FEEDS: Final = frozenset({"list", "watch"})
_QUIET_S: Final = 2.0
_READY_S: Final = 60.0
_TENTH: Final = 10
_ONE_IN_FIVE_BUSY: Final = 5
_MOST_BUSY: Final = 100


@dataclass(slots=True)
class Bench:
    """One run: the operator, what is seen beside it, and what was measured so far."""

    subject: Subject
    view: View
    runtimes: Runtimes
    audit: AuditLog
    keys: Sequence[OwnerKey]
    figures: Figures = field(default_factory=dict)
    calls: dict[str, Any] = field(default_factory=dict)
    trouble: str = ""

    async def quiet(self, within_s: float) -> Reading:
        """Wait until no pass is due or running, and return the operator's metrics then."""
        start_s = time.monotonic()
        last = await self.subject.read()
        while time.monotonic() - start_s < within_s:
            await asyncio.sleep(_QUIET_S)
            now = await self.subject.read()
            same = now.total("passes_total") == last.total("passes_total")
            if same and not now.total("queue_length"):
                return now
            last = now
        raise TimeoutError(f"the operator does not come to rest within {within_s:.0f} s")


async def ready(subject: Subject) -> None:
    """Wait until a started operator has listed everything."""
    start_s = time.monotonic()
    while not await subject.ready():
        if time.monotonic() - start_s > _READY_S or not subject.alive:
            raise TimeoutError("the operator does not become ready; see its log")
        await asyncio.sleep(0.05)


def _without(calls: Counter[tuple[str, str]], *, polls: bool) -> Counter[str]:
    """Return calls by verb, without lists and watches and, unless asked for, without polls."""
    found: Counter[str] = Counter()
    for (verb, kind), count in calls.items():
        if verb not in _FEEDS and (polls or (verb, kind) not in _POLLS):
            found[verb] += count
    return found


def _each(calls: Counter[str], count: float) -> Figures:
    return {verb: round(n / count, 2) for verb, n in sorted(calls.items()) if n}


def _p(share: float, values: Sequence[float]) -> float:
    """Return a percentile by nearest rank."""
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]


async def create(bench: Bench) -> None:
    """Create all objects at once and wait until each says Ready."""
    empty_kb, before = bench.subject.rss_kb(), await bench.subject.read()
    count = len(bench.keys)
    start_s = time.monotonic()
    await bench.view.apply_all((key, fleet.spec()) for key in bench.keys)
    bench.figures["create_requests_s"] = time.monotonic() - start_s
    await until(
        lambda: all(bench.view.is_ready(key) for key in bench.keys),
        f"{count} objects Ready",
        60 + 4 * count,
    )
    bench.figures["create_to_ready_s"] = time.monotonic() - start_s
    after = await bench.quiet(120)
    made = _without(after.calls() - before.calls(), polls=True)
    bench.figures["calls_per_create"] = made.total() / count
    bench.figures["cpu_ms_per_create"] = (after.cpu_s - before.cpu_s) * 1000 / count
    bench.figures["rss_empty_mb"] = empty_kb / 1000
    bench.calls["create"] = _each(made, count)


async def edit(bench: Bench, edits: int) -> None:
    """Edit one object after the other while nothing else happens; the audit log has the times."""
    before, since_s = await bench.quiet(60), time.time()
    for number in range(edits):
        key = bench.keys[number % len(bench.keys)]
        former = bench.view.document(key)
        # 3 is what the objects were made with; each round over them takes another value.
        await bench.view.apply(key, fleet.spec(passages=4 + number // len(bench.keys) % 5))
        await until(partial(_is_done, bench.view, key, former), f"edit of {key[1]}", 30)
    after = await bench.quiet(60)
    latencies_ms = [1000 * one for one in _latencies_s(bench.audit.writes(since_s))]
    if len(latencies_ms) != edits:
        raise RuntimeError(f"the audit log shows {len(latencies_ms)} of {edits} edits")
    bench.figures["edit_to_write_p50_ms"] = _p(0.5, latencies_ms)
    bench.figures["edit_to_write_p99_ms"] = _p(0.99, latencies_ms)
    made = _without(after.calls() - before.calls(), polls=False)
    bench.figures["calls_per_edit"] = made.total() / edits
    bench.figures["cpu_ms_per_edit"] = (after.cpu_s - before.cpu_s) * 1000 / edits
    bench.calls["edit"] = _each(made, edits)


def _is_done(view: View, key: OwnerKey, former: str | None) -> bool:
    return view.document(key) != former and view.is_seen(key)


def _latencies_s(writes: Sequence[Write]) -> list[float]:
    """Return for each edit the time from its answer to the answer of the child's write."""
    found: list[float] = []
    edited: dict[tuple[str, str], float] = {}
    for one in sorted(writes, key=lambda write: write.ended_s):
        if one.resource == names.PLURAL and not one.subresource:
            edited[one.namespace, one.name] = one.ended_s
        elif one.resource == "configmaps":
            key = one.namespace, one.name.removesuffix(names.config_map(""))
            if key in edited:
                found.append(one.ended_s - edited.pop(key))
    return found


async def idle(bench: Bench, window_s: float) -> None:
    """Do nothing and count what the operator does."""
    before, since_s, asked = await bench.quiet(90), time.time(), bench.runtimes.asked
    await asyncio.sleep(window_s)
    after = await bench.subject.read()
    count, minutes = len(bench.keys), window_s / 60
    calls = _without(after.calls() - before.calls(), polls=True)
    polled = bench.runtimes.asked - asked
    bench.figures["idle_writes"] = len(bench.audit.of_operator(since_s))
    bench.figures["idle_cpu_percent"] = 100 * (after.cpu_s - before.cpu_s) / window_s
    if minutes >= 1:
        # Everything is asked once a minute at rest: a shorter window catches all or nothing.
        polls = calls + Counter(runtime=polled)
        bench.figures["idle_polls_per_minute_per_cluster"] = polls.total() / count / minutes
        bench.calls["idle_minute"] = _each(polls, count * minutes)


async def traffic(bench: Bench, window_s: float) -> None:
    """Let a fifth of the runtimes (at most a hundred) report another corpus at every poll."""
    busy = bench.keys[: min(_MOST_BUSY, math.ceil(len(bench.keys) / _ONE_IN_FIVE_BUSY))]
    bench.runtimes.busy.update(busy)
    # A calm runtime is asked once a minute: until then nobody knows of the traffic.
    await asyncio.sleep(min(65.0, window_s))
    before, since_s, asked = await bench.subject.read(), time.time(), bench.runtimes.asked
    await asyncio.sleep(window_s)
    after = await bench.subject.read()
    bench.runtimes.busy.clear()
    calls = _without(after.calls() - before.calls(), polls=True)
    written = bench.audit.of_operator(since_s)
    quiet = after.total("passes_total", outcome="quiet") - before.total(
        "passes_total", outcome="quiet"
    )
    passes = after.total("passes_total") - before.total("passes_total")
    polled = bench.runtimes.asked - asked
    cpu_s = after.cpu_s - before.cpu_s
    bench.figures["traffic_clusters"] = len(busy)
    bench.figures["traffic_passes_per_s"] = passes / window_s
    bench.figures["traffic_cpu_percent"] = 100 * cpu_s / window_s
    bench.figures["status_writes_per_minute_per_cluster"] = (
        len([one for one in written if one.subresource == "status"]) / len(busy) / (window_s / 60)
    )
    bench.figures["loop_lag_p99_ms"] = 1000 * lag_s(before, after, 0.99)
    if quiet:
        reads = calls["get"]
        bench.figures["cpu_ms_per_noop"] = 1000 * cpu_s / passes
        bench.figures["calls_per_noop"] = (reads + polled) / passes
        bench.calls["noop"] = _each(Counter(get=reads, runtime=polled), passes)
    bench.figures["rss_mb"] = bench.subject.rss_kb() / 1000
    grown_kb = bench.subject.rss_kb() - 1000 * bench.figures["rss_empty_mb"]
    bench.figures["rss_kb_per_cluster"] = grown_kb / len(bench.keys)


async def compare(bench: Bench) -> None:
    """Compare the operator's own count of its writes with the audit log's."""
    reading = await bench.quiet(90)
    logged = by_verb(bench.audit.of_operator())
    own = reading.writes()
    bench.calls["writes"] = dict(sorted(own.items()))
    bench.calls["writes_audited"] = dict(sorted(logged.items()))
    bench.figures["writes_not_counted_alike"] = ((own - logged) + (logged - own)).total()


async def restart(bench: Bench) -> None:
    """Kill the operator, edit a tenth, take a child from another tenth, and start it again."""
    bench.subject.kill()
    edited, robbed = bench.keys[::_TENTH], bench.keys[1::_TENTH]
    await bench.view.apply_all((key, fleet.spec(passages=9)) for key in edited)
    missing = {Ref("Service", key[0], names.child(key[1], names.Component.API)) for key in robbed}
    for ref in missing:
        await bench.view.delete(ref)
    start_s = time.monotonic()
    bench.subject.start()
    await ready(bench.subject)
    bench.figures["restart_to_listed_s"] = time.monotonic() - start_s
    await until(lambda: all(bench.view.is_seen(key) for key in edited), "the edited objects", 300)
    while missing:
        missing = {ref for ref in missing if await bench.view.kube.get(ref) is None}
        await asyncio.sleep(0.05)
    while True:
        reading = await bench.subject.read()
        if reading.total("passes_total") >= len(bench.keys) and not reading.total("queue_length"):
            break
        await asyncio.sleep(0.1)
    bench.figures["restart_to_consistent_s"] = time.monotonic() - start_s
    bench.figures["restart_cpu_s"] = reading.cpu_s
    lists = sum(count for (verb, _), count in reading.calls().items() if verb == "list")
    bench.figures["calls_per_resync"] = lists
    bench.calls["resync"] = {"list": lists}
    bench.figures["rss_restarted_mb"] = bench.subject.rss_kb() / 1000
