"""The operator's rights are taken away while it works, and given back."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fakes import replicas
from fakes.apiserver import OPERATOR, Admin, until
from fakes.objects import cluster, cluster_ref
from fakes.replicas import Replica

from chatbot_operator.kinds import Object, Ref
from localkube.testserver import LoopbackServer

ROLE = "/apis/rbac.authorization.k8s.io/v1/clusterroles/chatbot-operator"
KINDS = ("ConfigMap", "Service", "Deployment", "StatefulSet", "PersistentVolumeClaim", "Secret")
REFUSED = re.compile(r'kube_calls_total\{kind="(\w+)",status="403",verb="(?:list|watch)"\}')


@contextmanager
def no_rights(server: LoopbackServer) -> Iterator[None]:
    """Take every right but the Lease's, and cut the watches: all of them begin anew, refused."""
    role = server.api.get(ROLE)
    server.api.request("PUT", ROLE, {**role, "rules": []})
    try:
        server.stop_apiserver()
        server.start_apiserver()
        yield
    finally:
        taken = server.api.get(ROLE)
        status, _ = server.api.request("PUT", ROLE, {**taken, "rules": role["rules"]})
        assert status == 200


async def uids(admin: Admin, namespace: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for kind in KINDS:
        for item in await admin.list(kind, namespace):
            found[f"{kind} {item['metadata']['name']}"] = item["metadata"]["uid"]
    return found


def granted_writes(server: LoopbackServer, namespace: str) -> list[Object]:
    """Return what the operator wrote in a namespace, without what was refused."""
    lines = map(json.loads, server.audit_log.read_text().rpartition("\n")[0].splitlines())
    return [
        entry
        for entry in lines
        if entry["user"]["username"] == OPERATOR
        and (entry.get("objectRef") or {}).get("namespace") == namespace
        and entry["responseStatus"]["code"] < 300
    ]


async def at_rest(server: LoopbackServer, namespace: str) -> None:
    """Wait until nothing was written in a namespace for two seconds."""
    seen: list[int] = []

    async def nothing_new() -> bool:
        seen.append(len(granted_writes(server, namespace)))
        return len(seen) > 20 and len(set(seen[-20:])) == 1

    await until(nothing_new, "it rests", 40)


async def refused_everywhere(one: Replica) -> bool:
    """Whether it was refused to list or to watch each of the kinds at least once."""
    metrics = one.answers("/metrics") or ""
    found = REFUSED.findall(metrics)
    return set(found) >= {*KINDS} - {"Secret"}


async def test_rights_lost_and_given_back_cost_no_restart_and_no_child(
    server: LoopbackServer, operator_kubeconfig: Path, admin: Admin, namespace: str
) -> None:
    config = Ref("ConfigMap", namespace, "chat-config")

    async def replicas_are(count: int) -> bool:
        shard = await admin.get(Ref("StatefulSet", namespace, "chat-shard-0"))
        return shard is not None and shard["spec"]["replicas"] == count

    def edit(count: int) -> Object:
        return {"spec": {"retrieval": {"replicasPerShard": count}}}

    with replicas.pair(server, operator_kubeconfig, namespace) as both:
        await admin.create(cluster(namespace))

        async def made() -> bool:
            return await admin.get(Ref("Deployment", namespace, "chat-api")) is not None

        await until(made, "the children", 20)
        await at_rest(server, namespace)
        before = await uids(admin, namespace)
        with no_rights(server):
            written = granted_writes(server, namespace)
            await admin.delete(config)
            await admin.patch(cluster_ref(namespace), edit(2))
            for one in both.replicas:
                await until(lambda one=one: refused_everywhere(one), "it was refused", 60)
            assert granted_writes(server, namespace) == written
            for one in both.replicas:
                assert (one.answers("/livez"), one.answers("/readyz")) == ("ok\n", "ok\n")

        async def healed() -> bool:
            return await replicas_are(2) and await admin.get(config) is not None

        await until(healed, "the deleted child and the edit", 30)
        after = await uids(admin, namespace)
        kept = before.keys() - {"ConfigMap chat-config"}
        assert {key: after.get(key) for key in kept} == {key: before[key] for key in kept}

        # The next list of the objects is a minute away: what is seen sooner, a watch told.
        await admin.patch(cluster_ref(namespace), edit(3))

        async def seen() -> bool:
            return await replicas_are(3)

        await until(seen, "the watch of the objects tells again, not only the list", 30)
        assert [one.process.poll() for one in both.replicas] == [None, None]
