"""A pass from its key to its outcome, while the world changes under it."""

from __future__ import annotations

import time

from fakes.kube import FakeKube
from fakes.objects import cluster, cluster_ref
from fakes.runtime import FakeRuntime

from chatbot_operator.events import EventWriter
from chatbot_operator.execute import Executor
from chatbot_operator.facts import SecretKey
from chatbot_operator.feeders import SecretPoll, StatusPoll, list_once, owner_feed
from chatbot_operator.kinds import Ref
from chatbot_operator.model import Apply, OperatorSettings, Plan
from chatbot_operator.observe import World
from chatbot_operator.poller import Poller
from chatbot_operator.reconcile import Reconciler
from chatbot_operator.store import OwnerKey
from chatbot_operator.telemetry import Telemetry

KEY = ("ns", "chat")
CONFIG = {
    "apiVersion": "v1",
    "kind": "ConfigMap",
    "metadata": {"name": "chat-config", "namespace": "ns"},
}


def reconciler(kube: FakeKube, world: World) -> Reconciler:
    secrets: Poller[SecretKey] = Poller(SecretPoll(kube, world.secrets, time.time).fetch)
    ask = StatusPoll(
        FakeRuntime(), world.runtime, world.secrets, world.pods.of_owner, world.owner, time.time
    )
    statuses: Poller[OwnerKey] = Poller(ask.fetch)
    writer = EventWriter(kube, time.time, "test")
    return Reconciler(
        world=world,
        settings=OperatorSettings("r", "1", "d", "s", "o"),
        plan=lambda observed, now_s: Plan((Apply(0, CONFIG, "Created"),)),
        executor=Executor(kube, world, writer, time.time, "x".__mul__),
        secret_polls=secrets,
        status_polls=statuses,
        telemetry=Telemetry(),
        now_s=time.time,
    )


class MadeAnewDuringRead(FakeKube):
    """Deletes and makes the ChatbotCluster anew just before it is read; the watch is faster."""

    world: World

    async def get(self, ref: Ref) -> dict[str, object] | None:
        if ref == cluster_ref("ns") and len(self.objects) == 1:
            await self.remove(ref)
            await self.put_live(cluster("ns"))
            await list_once(self, owner_feed("", self.world.owners))
        return await super().get(ref)


async def test_an_object_made_anew_during_its_pass_gets_the_next_one_at_once() -> None:
    world = World(lambda key: None)
    kube = MadeAnewDuringRead()
    kube.world = world
    former = await kube.put_live(cluster("ns"))
    await list_once(kube, owner_feed("", world.owners))
    assert await reconciler(kube, world).reconcile(KEY) == 0.0
    now = world.owner(KEY)
    assert now is not None
    assert now.uid != former["metadata"]["uid"]
    assert Ref("ConfigMap", "ns", "chat-config") not in kube.objects


async def test_an_object_that_is_gone_is_forgotten() -> None:
    world = World(lambda key: None)
    kube = FakeKube()
    await kube.put_live(cluster("ns"))
    await list_once(kube, owner_feed("", world.owners))
    await kube.remove(cluster_ref("ns"))
    assert await reconciler(kube, world).reconcile(KEY) is None
    assert world.owner(KEY) is None
    assert kube.objects == {}


async def test_an_object_that_was_handed_over_is_forgotten_and_not_written() -> None:
    blue = World(lambda key: None, operator_class="blue")
    kube = FakeKube()
    await kube.put_live(cluster("ns", operatorClass="blue"))
    await list_once(kube, owner_feed("", blue.owners, blue.own_key))
    assert blue.owner(KEY) is not None
    # The edit is newer than what the watch has shown: the read before the first write tells.
    await kube.put_live(cluster("ns"))
    assert await reconciler(kube, blue).reconcile(KEY) is None
    assert (blue.owner(KEY), set(kube.objects)) == (None, {cluster_ref("ns")})


async def test_a_list_shows_the_objects_of_one_class_alone() -> None:
    default, blue = World(lambda key: None), World(lambda key: None, operator_class="blue")
    kube = FakeKube()
    await kube.put_live(cluster("ns"))
    await kube.put_live(cluster("ns", "other", operatorClass="blue"))
    for world in (default, blue):
        await list_once(kube, owner_feed("", world.owners, world.own_key))
    assert (default.owners.owners(), blue.owners.owners()) == ((KEY,), (("ns", "other"),))
