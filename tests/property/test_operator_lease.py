"""Many processes and one Lease under any delays, freezes, deaths, deletions and clocks.

Each process is the real state machine of `lease.py` behind a network and a clock of its own; the
server is a dict with versions. Time in the world is real time in seconds. A process's monotonic
clock starts anywhere and runs up to 3 % too fast or too slow; its wall clock jumps at will.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from random import Random
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from chatbot_operator import lease
from chatbot_operator.election import REQUEST_TIMEOUT_S
from chatbot_operator.kinds import Object, Ref
from chatbot_operator.kube import REQUEST_TIMEOUT_S as WRITE_TIMEOUT_S
from chatbot_operator.lease import Candidate, Decision

REF = Ref("Lease", "ns", "operator")
END_S = 150.0
#: Every process asks itself this often whether it may write.
WRITE_EVERY_S = 0.37
SEEDS = st.integers(min_value=0, max_value=2**32)


@dataclass(slots=True)
class World:
    """The server's Lease and what happens when."""

    random: Random
    live: Object | None = None
    now_s: float = 0.0
    version: int = 0
    #: Until when a write of each process may be under way, in real time.
    writing_until_s: dict[str, float] = field(default_factory=dict)
    leaders: set[str] = field(default_factory=set)
    _due: list[tuple[float, int, Callable[[], None]]] = field(default_factory=list)
    _numbers: itertools.count[int] = field(default_factory=itertools.count)

    def after(self, wait_s: float, event: Callable[[], None]) -> None:
        heapq.heappush(self._due, (self.now_s + wait_s, next(self._numbers), event))

    def run(self) -> None:
        while self._due and self._due[0][0] < END_S:
            self.now_s, _, event = heapq.heappop(self._due)
            event()

    def put(self, obj: Object, uid: str) -> Object:
        self.version += 1
        meta = {**obj["metadata"], "uid": uid, "resourceVersion": str(self.version)}
        self.live = {**obj, "metadata": meta}
        return self.live

    def create(self, obj: Object) -> Object | None:
        return None if self.live is not None else self.put(obj, f"uid-{self.version}")

    def replace(self, obj: Object) -> Object | None:
        same = self.live is not None and obj["metadata"] == self.live["metadata"]
        return self.put(obj, obj["metadata"]["uid"]) if same else None

    def delete(self) -> None:
        self.live = None

    def touch(self) -> None:
        """Somebody edits a label: another version, the same record."""
        if self.live is not None:
            self.put(self.live, self.live["metadata"]["uid"])


@dataclass(slots=True)
class Node:
    """One process: `lease.Candidate` with the loop of `election.Election` around it."""

    world: World
    name: str
    zero_s: float
    rate: float
    #: Its requests and their answers are mostly quick, and sometimes take up to this.
    slowest_s: float = 0.02
    candidate: Candidate = field(init=False)
    live: Object | None = None
    last_renew_time: str = ""
    frozen_until_s: float = 0.0
    cut_off_until_s: float = 0.0
    dead: bool = False
    writes: int = 0

    def __post_init__(self) -> None:
        self.candidate = Candidate(self.name)

    def clock_s(self) -> float:
        return self.zero_s + self.rate * self.world.now_s

    def wall_s(self) -> float:
        return 1_790_000_000.0 + self.world.random.choice([0.0, 300.0, -300.0, self.world.now_s])

    def delay_s(self) -> float:
        longest_s = min(self.world.random.choice([0.0, 0.1, 1.0, 6.0, 12.0]), self.slowest_s)
        return longest_s * self.world.random.random()

    def later(self, wait_s: float, what: Callable[[], None]) -> None:
        """Do it in `wait_s`, or when the process is thawed, unless it has died."""

        def event() -> None:
            if self.dead:
                return
            if self.world.now_s < self.frozen_until_s:
                self.world.after(self.frozen_until_s - self.world.now_s, event)
            else:
                what()

        self.world.after(wait_s, event)

    def ask(self, request: Callable[[], Any], then: Callable[[Any], None]) -> None:
        """Send a request: it arrives, is done, and is answered, each whenever; or it is lost."""
        answered, sent_s = [False], self.clock_s()

        def at_server() -> None:
            answer = request()

            def arrives() -> None:
                if not answered[0] and self.clock_s() - sent_s < REQUEST_TIMEOUT_S:
                    answered[0] = True
                    then(answer)

            if self.world.now_s >= self.cut_off_until_s:
                self.later(self.delay_s(), arrives)

        def gives_up() -> None:
            if not answered[0]:
                answered[0] = True
                self.decided()

        if self.world.now_s >= self.cut_off_until_s:
            self.world.after(self.delay_s(), at_server)
        self.later(REQUEST_TIMEOUT_S, gives_up)

    def step(self) -> None:
        if self.candidate.leads:
            self.act()
        else:
            self.look(self.act)

    def look(self, then: Callable[[], None]) -> None:
        def seen(live: Object | None) -> None:
            self.live = live
            record = None if live is None else lease.record_of(live)
            self.candidate = self.candidate.saw(record, self.clock_s())
            then()

        self.ask(lambda: self.world.live, seen)

    def act(self, again: bool = True) -> None:
        decision = lease.decide(self.candidate, self.clock_s())
        if decision is Decision.RESTORE:
            self.ask(lambda: self.world.create(lease.missing(REF)), lambda _: self.decided())
        elif decision is Decision.RENEW or (decision is Decision.ACQUIRE and again):
            self.hold(again)
        else:
            self.decided()

    def hold(self, again: bool) -> None:
        sent_s, absent = self.clock_s(), self.live is None
        base = lease.missing(REF, "") if self.live is None else self.live
        obj = lease.held(base, self.name, self.wall_s(), self.last_renew_time)

        def answered(live: Object | None) -> None:
            if live is None:
                self.look(lambda: self.act(again=False) if again else self.decided())
                return
            self.live, self.last_renew_time = live, live["spec"]["renewTime"]
            self.candidate = self.candidate.renewed(lease.record_of(live), sent_s, self.clock_s())
            self.decided()

        write = self.world.create if absent else self.world.replace
        self.ask(lambda: write(obj), answered)

    def decided(self) -> None:
        if lease.decide(self.candidate, self.clock_s()) is Decision.STEP_DOWN:
            self.candidate = self.candidate.stepped_down()
        every_s = lease.RENEW_EVERY_S if self.candidate.leads else lease.LOOK_EVERY_S
        self.later(every_s, self.step)

    def try_to_write(self) -> None:
        """Begin a write if it may: the oracle looks whether anybody else has one under way."""
        left_s = min(self.candidate.write_left_s(self.clock_s()), WRITE_TIMEOUT_S)
        if left_s > 0:
            others = {k: s for k, s in self.world.writing_until_s.items() if k != self.name}
            overlap = {k: s for k, s in others.items() if s > self.world.now_s}
            assert not overlap, f"{self.name} and {overlap} at {self.world.now_s:.2f} s"
            takes_s = left_s * self.world.random.choice([0.01, 0.5, 1.0]) / self.rate
            until_s = self.world.writing_until_s.get(self.name, 0.0)
            self.world.writing_until_s[self.name] = max(until_s, self.world.now_s + takes_s)
            self.world.leaders.add(self.name)
            self.writes += 1
        self.later(WRITE_EVERY_S, self.try_to_write)

    def die(self) -> None:
        self.dead = True

    def freeze(self, wait_s: float) -> None:
        self.frozen_until_s = max(self.frozen_until_s, self.world.now_s + wait_s)

    def cut_off(self, wait_s: float) -> None:
        """Lose its requests for the Lease and their answers; its writes still arrive."""
        self.cut_off_until_s = max(self.cut_off_until_s, self.world.now_s + wait_s)

    def terminate(self) -> None:
        """End as on SIGTERM: no write begins, those under way end, then the lease is free."""
        self.candidate = self.candidate.stepped_down()
        self.dead = True
        ends_s = self.world.writing_until_s.get(self.name, 0.0)

        def release() -> None:
            live = self.world.live
            if live is not None and lease.record_of(live).holder == self.name:
                self.world.replace(lease.released(live))

        self.world.after(max(0.0, ends_s - self.world.now_s) + 0.01, release)


def build(random: Random, processes: int) -> tuple[World, list[Node]]:
    world = World(random)
    if random.random() < 0.8:
        world.create(lease.missing(REF, random.choice(["", "a process before"])))
    nodes = [
        Node(
            world,
            f"p{i}",
            zero_s=random.uniform(0, 1e6),
            rate=random.choice([0.97, 1.0, 1.03]),
            slowest_s=random.choice([0.02, 0.02, 1.0, 12.0]),
        )
        for i in range(processes)
    ]
    for node in nodes:
        begin_s = random.choice([0.0, 40.0]) * random.random()
        world.after(begin_s, node.step)
        world.after(begin_s, node.try_to_write)
    return world, nodes


def disturb(world: World, nodes: list[Node]) -> None:
    for _ in range(world.random.randrange(16)):
        node, wait_s = world.random.choice(nodes), world.random.choice([1.0, 12.0, 16.0, 60.0])
        what: Callable[[], None] = world.random.choice(
            [
                world.delete,
                world.touch,
                node.die,
                node.terminate,
                partial(node.freeze, wait_s),
                partial(node.cut_off, wait_s),
                partial(node.cut_off, wait_s),
            ]
        )
        world.after(world.random.uniform(0, END_S), what)


@settings(max_examples=300, deadline=None)
@given(SEEDS, st.integers(min_value=2, max_value=4))
def test_no_two_processes_ever_write_at_once(seed: int, processes: int) -> None:
    world, nodes = build(Random(seed), processes)
    disturb(world, nodes)
    world.run()


@settings(max_examples=40, deadline=None)
@given(SEEDS)
def test_on_a_quick_network_a_dead_leader_is_replaced_in_time(seed: int) -> None:
    random = Random(seed)
    world = World(random)
    world.create(lease.missing(REF, ""))
    nodes = [Node(world, f"p{i}", random.uniform(0, 1e6), 1.0) for i in range(3)]
    for node in nodes:
        world.after(0.0, node.step)
        world.after(0.0, node.try_to_write)
    killed_s = random.uniform(5.0, 30.0)

    def kill() -> None:
        (leader,) = [node for node in nodes if node.candidate.write_left_s(node.clock_s()) > 0]
        leader.dead = True

        def replaced() -> None:
            (follower,) = [one for one in nodes if one.candidate.leads and not one.dead]
            assert follower.writes > 0

        world.after(lease.DURATION_S + lease.LOOK_EVERY_S + 1.0, replaced)

    world.after(killed_s, kill)
    world.run()
    assert len(world.leaders) == 2
