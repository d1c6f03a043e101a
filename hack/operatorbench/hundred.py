"""How long a plan takes for an object of a hundred shards at rest, on real children."""

from __future__ import annotations

import time
from typing import Final

from chatbot_operator import feeders, main
from chatbot_operator.desired import target
from chatbot_operator.kinds import AUTOSCALERS, WATCHED, Ref
from chatbot_operator.model import Observed
from chatbot_operator.observe import World, observe
from chatbot_operator.plan import plan
from chatbot_operator.runtime_client import HttpRuntimeClient, new_http
from chatbot_operator.store import OwnerKey
from operatorbench import fleet
from operatorbench.phases import Bench

SHARDS: Final = 100
KEY: Final = ("fleet-00", "hundred")
_ROUNDS: Final = 50


async def measure(bench: Bench) -> None:
    """Let the operator make the object, then plan for what is there, here and again and again."""
    await bench.view.apply(KEY, fleet.spec(SHARDS))
    await fleet.until(lambda: bench.view.is_ready(KEY), "the object of a hundred shards", 180)
    await bench.quiet(60)
    observed = await _observed(bench, KEY)
    first = _timed(observed)
    again = sorted(_timed(observed) for _ in range(_ROUNDS))
    wall_ms, cpu_ms = again[_ROUNDS // 2]
    bench.figures["plan_100_shards_ms"] = wall_ms
    bench.figures["plan_100_shards_cpu_ms"] = cpu_ms
    bench.figures["plan_100_shards_first_ms"] = first[0]
    bench.figures["plan_100_shards_children"] = len(observed.children)


def _timed(observed: Observed) -> tuple[float, float]:
    wall_s, cpu_s = time.perf_counter(), time.thread_time()
    decided = plan(observed, time.time())
    taken = time.perf_counter() - wall_s, time.thread_time() - cpu_s
    if decided.steps:
        raise RuntimeError(f"the object is not at rest: {len(decided.steps)} steps are due")
    return 1000 * taken[0], 1000 * taken[1]


async def _observed(bench: Bench, key: OwnerKey) -> Observed:
    """Return what the operator would observe, read anew from the API server and the runtime."""
    kube, world = bench.view.kube, World(lambda _: None)
    await feeders.list_once(kube, feeders.owner_feed("", world.owners))
    await feeders.list_once(kube, feeders.pod_feed("", world.pods))
    for kind in WATCHED:
        if kind != "Pod":
            await feeders.list_once(kube, feeders.child_feed(kind, "", world.children))
    for kind in AUTOSCALERS:
        # Nobody else scales anything here.
        world.autoscalers.replace(feeders.scope(kind, ""), {}, 0)
    settings = main.arguments([], {}).settings
    before = observe(world, key, settings)
    if before is None or not before.children_complete:
        raise RuntimeError("the object of a hundred shards was not listed with all its children")
    wanted = plan(before, time.time()).wanted_secrets
    world.secrets.want(key, wanted)
    for one in wanted:
        secret = await kube.get(Ref("Secret", key[0], one.name))
        world.secrets.read((key, one.name), secret, time.time())
    async with new_http() as http:
        client = HttpRuntimeClient(http)
        answer = await client.status(bench.runtimes.address, world.secrets.token(key), "")
    assert answer.status is not None
    world.runtime.answered(key, answer.status, time.time())
    target.target.cache_clear()
    found = observe(world, key, settings)
    assert found is not None
    return found
