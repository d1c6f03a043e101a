"""Other people's objects, data of a former life, and an owner that is gone."""

from __future__ import annotations

import asyncio

from fakes.apiserver import Admin, StartOperator, until
from fakes.objects import cluster, cluster_ref

from chatbot_core import names
from chatbot_operator.kinds import Object, Ref


def condition(obj: Object | None, kind: str) -> Object:
    conditions = ((obj or {}).get("status") or {}).get("conditions") or []
    found: Object = next((one for one in conditions if one["type"] == kind), {})
    return found


async def test_an_object_of_somebody_else_is_named_and_never_touched(
    start_operator: StartOperator, admin: Admin, namespace: str
) -> None:
    theirs = await admin.create(
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "chat-api", "namespace": namespace},
            "spec": {"ports": [{"port": 1}], "selector": {"app": "theirs"}},
        }
    )
    ref = Ref("Service", namespace, "chat-api")
    async with start_operator(namespace) as running:
        await admin.create(cluster(namespace))

        async def named() -> bool:
            ready = condition(await admin.get(cluster_ref(namespace)), "Stalled")
            return ready.get("reason") == "ForeignObject" and "chat-api" in ready["message"]

        await until(named, "the status names the Service", 20)
        live = await admin.get(ref)
        assert live is not None
        assert live["metadata"]["resourceVersion"] == theirs["metadata"]["resourceVersion"]
        assert "services chat-api" not in " ".join(running.writes())

        await admin.delete(ref)

        async def made() -> bool:
            return await admin.get(ref) is not None

        await until(made, "the name is free", 20)

        async def forgiven() -> bool:
            return not condition(await admin.get(cluster_ref(namespace)), "Stalled")

        await until(forgiven, "the status forgets it", 20)


async def test_what_a_former_object_left_is_taken_over_with_an_event(
    start_operator: StartOperator, admin: Admin, namespace: str
) -> None:
    claim = Ref("PersistentVolumeClaim", namespace, "chat-database")
    secret = Ref("Secret", namespace, "chat-database")
    async with start_operator(namespace) as running:
        await admin.create(cluster(namespace))
        await running.quiet(1.0)
        old_claim, old_secret = await admin.get(claim), await admin.get(secret)
        assert old_claim is not None
        assert old_secret is not None
        await admin.delete(cluster_ref(namespace))

        async def collected() -> bool:
            config = await admin.get(Ref("ConfigMap", namespace, "chat-config"))
            return config is None and await admin.get(cluster_ref(namespace)) is None

        await until(collected, "garbage collection", 60)
        await asyncio.sleep(1)
        running.forget_writes()
        again = await admin.create(cluster(namespace))
        await running.quiet(1.5)
        new_claim, new_secret = await admin.get(claim), await admin.get(secret)
        assert new_claim is not None
        assert new_secret is not None
        assert new_claim["metadata"]["uid"] == old_claim["metadata"]["uid"]
        assert new_secret["data"] == old_secret["data"]
        mark = new_claim["metadata"]["annotations"][names.ANNOTATION_CLUSTER_UID]
        assert mark == again["metadata"]["uid"]
        told = [
            event["note"]
            for event in await admin.list("Event", namespace)
            if event["reason"] == "TakenOver"
        ]
        assert any("PersistentVolumeClaim chat-database" in note for note in told), told


async def test_an_object_that_vanished_unseen_is_not_made_again(
    start_operator: StartOperator, admin: Admin, namespace: str
) -> None:
    """The news of the deletion is lost; its children must stay gone."""
    config = Ref("ConfigMap", namespace, "chat-config")
    async with start_operator(namespace) as running:
        await admin.create(cluster(namespace))
        await running.quiet(1.0)
        running.operator.world.owners.vanished = lambda key, version: None  # type: ignore[method-assign] # the lost event
        running.forget_writes()
        await admin.delete(cluster_ref(namespace))

        async def collected() -> bool:
            return await admin.get(config) is None

        await until(collected, "garbage collection", 60)
        await asyncio.sleep(3)
        # The server refuses the status of an object that is gone; nothing else was tried.
        assert set(running.writes()) <= {"patch chatbotclusters chat status"}
        assert await admin.get(config) is None
        assert running.operator.world.owner((namespace, "chat")) is None


async def test_a_restart_of_the_api_server_costs_nothing_but_the_healing_of_an_edit(
    start_operator: StartOperator, admin: Admin, namespace: str
) -> None:
    config = Ref("ConfigMap", namespace, "chat-config")
    async with start_operator(namespace) as running:
        await admin.create(cluster(namespace))
        await running.quiet(1.0)
        await running.quiet(3.0)
        running.forget_writes()
        running.server.stop_apiserver()
        await asyncio.sleep(1)
        running.server.start_apiserver()
        await admin.patch(config, {"data": {names.CONFIG_KEY: "{}"}})

        async def healed() -> bool:
            live = await admin.get(config)
            return live is not None and live["data"][names.CONFIG_KEY] != "{}"

        await until(healed, "the edit inside the gap", 15)
        await running.quiet(2.0)
        assert {write.split(" ", 1)[1] for write in running.writes()} == {"configmaps chat-config"}


async def test_a_hand_that_scales_is_taken_back_with_an_event(
    start_operator: StartOperator, admin: Admin, namespace: str
) -> None:
    shard = Ref("StatefulSet", namespace, "chat-shard-0")
    async with start_operator(namespace) as running:
        await admin.create(cluster(namespace))
        await running.quiet(1.0)
        await admin.patch(shard, {"spec": {"replicas": 3}})

        async def told() -> bool:
            live = await admin.get(shard)
            notes = [
                event["note"]
                for event in await admin.list("Event", namespace)
                if event["reason"] == "Scaled"
            ]
            back = live is not None and live["spec"]["replicas"] == 1
            return back and any("chat-shard-0 to 1: Scaled" in note for note in notes)

        await until(told, "back to one, with an Event")
