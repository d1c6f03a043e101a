"""What is put before a heal: only items that are not ours leave, and nothing of ours is lost."""

from __future__ import annotations

import json
from typing import Any

from chatbot_core import names
from chatbot_operator.heal import without_foreign_items, without_update_entry


def service(*ports: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "chat-api", **more},
        "spec": {"ports": list(ports), "clusterIP": "10.0.0.1"},
    }


def managed(manager: str, operation: str, *keys: dict[str, Any]) -> dict[str, Any]:
    ports = {f"k:{json.dumps(key)}": {".": {}, "f:port": {}} for key in keys}
    return {
        "manager": manager,
        "operation": operation,
        "fieldsV1": {"f:spec": {"f:ports": ports}},
    }


HTTP = {"name": "http", "port": 80}
HTTP_LIVE = {"name": "http", "port": 80, "protocol": "TCP", "targetPort": 8080}
MOVED = {"name": "http", "port": 81, "protocol": "TCP", "targetPort": 8080}


def test_a_port_that_moved_gives_way_to_ours() -> None:
    entry = managed("kubectl-edit", "Update", {"port": 81, "protocol": "TCP"})
    live = service(MOVED, managedFields=[entry])
    healed = without_foreign_items(service(HTTP), live)
    assert healed == {**live, "spec": {"ports": [HTTP], "clusterIP": "10.0.0.1"}}


def test_nothing_foreign_means_nothing_to_put() -> None:
    entry = managed(names.MANAGER, "Apply", {"port": 80, "protocol": "TCP"})
    live = service(HTTP_LIVE, managedFields=[entry])
    assert without_foreign_items(service(HTTP), live) is None


def test_an_added_item_leaves_and_ours_keeps_what_the_server_added() -> None:
    keys = ({"port": 80, "protocol": "TCP"}, {"port": 81, "protocol": "TCP"})
    live = service(HTTP_LIVE, MOVED, managedFields=[managed("kubectl-edit", "Update", *keys)])
    healed = without_foreign_items(service(HTTP), live)
    assert healed is not None
    assert healed["spec"]["ports"] == [HTTP_LIVE]


def test_a_list_without_keys_is_left_to_the_apply() -> None:
    entry = {"manager": "x", "operation": "Update", "fieldsV1": {"f:spec": {"f:ports": {}}}}
    live = service(MOVED, managedFields=[entry])
    assert without_foreign_items(service(HTTP), live) is None


def test_only_the_trace_of_our_own_put_is_removed() -> None:
    ours = {"manager": names.MANAGER, "operation": "Apply"}
    theirs = {"manager": "kubectl-edit", "operation": "Update"}
    trace = {"manager": names.MANAGER, "operation": "Update"}
    status = {"manager": names.MANAGER, "operation": "Update", "subresource": "status"}
    live = service(managedFields=[ours, theirs, trace, status])
    tidy = without_update_entry(live)
    assert tidy is not None
    assert tidy["metadata"]["managedFields"] == [ours, theirs, status]
    assert without_update_entry(tidy) is None


def workload(**spec: Any) -> dict[str, Any]:
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "x"}, "spec": spec}


def test_a_source_that_the_server_put_into_a_volume_gives_way_to_ours() -> None:
    ours = {"name": "data", "persistentVolumeClaim": {"claimName": "docs-database"}}
    tree = {"f:spec": {"f:volumes": {'k:{"name":"data"}': {".": {}, "f:name": {}}}}}
    entry = {"manager": "kubectl-edit", "operation": "Update", "fieldsV1": tree}
    live = workload(volumes=[{"name": "data", "emptyDir": {}}])
    live["metadata"]["managedFields"] = [entry]
    healed = without_foreign_items(workload(volumes=[ours]), live)
    assert healed is not None
    assert healed["spec"] == {"volumes": [ours]}
    assert without_foreign_items(workload(volumes=[ours]), healed) is None


def test_what_another_strategy_brought_along_leaves() -> None:
    live = workload(strategy={"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%"}})
    healed = without_foreign_items(workload(strategy={"type": "Recreate"}), live)
    assert healed is not None
    assert healed["spec"] == {"strategy": {"type": "Recreate"}}
