"""A stub kubelet: pods of a test server become Running although no container runs.

It stands in for the scheduler, the kubelet and the volume provisioner of one node that is always
ready. Pods are bound to it and reported ready, the pods of Jobs succeed, deleted pods go, claims
become Bound and grow without a PersistentVolume. It checks nothing: neither room, nor that a
mounted ConfigMap is there, nor a probe. Figures measured with it are called *stub kubelet*.

Source of the protocol: the pages "Pod Lifecycle" and "Leases" of the Kubernetes documentation.
"""

import argparse
import asyncio
import contextlib
import json
import os
import ssl
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import Enum
from pathlib import Path
from typing import Any

import aiohttp

from localkube import configs, processes
from localkube.processes import Process

Object = dict[str, Any]

NODE = "stub-kubelet"
#: Writes at the same time: the API server of a test shares its cores with what is tested.
CONCURRENCY = 16
HEARTBEAT_S = 10.0
_LEASES = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases"
_RETRY_S = 1.0
_TRIES = 5
_LINE_BYTES = 1 << 20
_ENDED = frozenset({"Succeeded", "Failed"})
#: Written meanwhile by somebody else, or gone: the next event says what to do.
_OVERTAKEN = frozenset({404, 409})


@dataclass(frozen=True, slots=True)
class Behaviour:
    """How pods behave; durations in seconds.

    A pod is ready `start_s` after it was bound, and a pod of a Job has succeeded then. A deleted
    pod goes after `stop_s` or its grace period, whichever is shorter. An image whose name holds
    `missing` is never pulled. `address` is the podIP of every pod.
    """

    start_s: float = 0.2
    stop_s: float = 0.2
    missing: str = "missing"
    address: str = "127.0.0.1"


class Step(Enum):
    """What the stub does next for a pod."""

    BIND = "bind"
    START = "start"
    FINISH = "finish"
    REFUSE_IMAGE = "refuse image"
    REMOVE = "remove"


def next_step(obj: Object, behaviour: Behaviour) -> Step | None:
    """Return what a pod needs next, None when it is as it shall be. Pure."""
    meta, spec, status = obj["metadata"], obj["spec"], obj.get("status") or {}
    if "deletionTimestamp" in meta:
        return Step.REMOVE
    if status.get("phase") in _ENDED:
        return None
    if not spec.get("nodeName"):
        return Step.BIND
    if spec["nodeName"] != NODE or status.get("containerStatuses"):
        return None
    images = [one["image"] for one in (*(spec.get("initContainers") or ()), *spec["containers"])]
    if any(behaviour.missing in image for image in images):
        return Step.REFUSE_IMAGE
    return Step.START if spec.get("restartPolicy", "Always") == "Always" else Step.FINISH


def wants_room(claim: Object) -> bool:
    """Return whether a claim is not bound yet or has grown. Pure."""
    if "deletionTimestamp" in claim["metadata"]:
        return False
    status = claim.get("status") or {}
    has = (status.get("capacity") or {}).get("storage")
    return status.get("phase") != "Bound" or has != _asked(claim)


def pod_status(pod: Object, step: Step, behaviour: Behaviour, now: str) -> Object:
    """Return the status that a kubelet would write after a step. Pure."""
    spec = pod["spec"]
    ready = step is Step.START
    phase = {Step.START: "Running", Step.FINISH: "Succeeded"}.get(step, "Pending")
    flags = {
        "Initialized": step is not Step.REFUSE_IMAGE,
        "Ready": ready,
        "ContainersReady": ready,
        "PodScheduled": True,
    }
    conditions = [
        {"type": name, "status": str(holds), "lastTransitionTime": now}
        for name, holds in flags.items()
    ]
    first = [_container(one, _init_step(one, step), now) for one in spec.get("initContainers", ())]
    return {
        "phase": phase,
        "conditions": conditions,
        "hostIP": behaviour.address,
        "podIP": behaviour.address,
        "podIPs": [{"ip": behaviour.address}],
        "startTime": now,
        **({"initContainerStatuses": first} if first else {}),
        "containerStatuses": [_container(one, step, now) for one in spec["containers"]],
    }


def _init_step(container: Object, step: Step) -> Step:
    # A native sidecar runs as long as its pod; other init containers have ended before.
    ended = step is Step.START and container.get("restartPolicy") != "Always"
    return Step.FINISH if ended else step


def _container(container: Object, step: Step, now: str) -> Object:
    image = container["image"]
    states: dict[Step, Object] = {
        Step.START: {"running": {"startedAt": now}},
        Step.FINISH: {"terminated": {"exitCode": 0, "reason": "Completed", "finishedAt": now}},
        Step.REFUSE_IMAGE: {
            "waiting": {
                "reason": "ImagePullBackOff",
                "message": f'Back-off pulling image "{image}"',
            }
        },
    }
    return {
        "name": container["name"],
        "image": image,
        "imageID": "" if step is Step.REFUSE_IMAGE else image,
        "ready": step is not Step.REFUSE_IMAGE,
        "started": step is Step.START,
        "restartCount": 0,
        "state": states[step],
    }


def _asked(claim: Object) -> str:
    return str(claim["spec"]["resources"]["requests"]["storage"])


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


@dataclass(frozen=True, slots=True)
class Work:
    """One effect, after a wait; `key` says which, so that each is done once an object."""

    key: str
    wait_s: float
    effect: Callable[[], Awaitable[None]]


Serve = Callable[[Object], Work | None]


@dataclass(slots=True)
class StubKubelet:
    """One node's work until cancelled. `behaviour` may be replaced at any time."""

    http: aiohttp.ClientSession
    behaviour: Behaviour = Behaviour()
    _places: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(CONCURRENCY))
    _begun: dict[str, set[str]] = field(default_factory=dict)

    async def run(self) -> None:
        """Register the node and the storage class, then serve pods and claims."""
        await self._register()
        async with asyncio.TaskGroup() as group:
            group.create_task(self._beat())
            group.create_task(self._follow("pods", group, self._pod))
            group.create_task(self._follow("persistentvolumeclaims", group, self._claim))

    async def _register(self) -> None:
        await self._apply("/apis/storage.k8s.io/v1/storageclasses", configs.STORAGE_CLASS)
        node: Object = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": NODE}}
        await self._apply("/api/v1/nodes", node)
        room = {"cpu": "100k", "memory": "1000Ti", "pods": "1M", "ephemeral-storage": "1000Ti"}
        kinds = {"Ready": "True", "MemoryPressure": "False", "DiskPressure": "False"}
        conditions = [
            {"type": kind, "status": value, "lastHeartbeatTime": _now(), "reason": "StubKubelet"}
            for kind, value in {**kinds, "PIDPressure": "False"}.items()
        ]
        node["status"] = {"capacity": room, "allocatable": room, "conditions": conditions}
        await self._apply("/api/v1/nodes", node, "/status")

    async def _beat(self) -> None:
        while True:
            renewed = datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
            lease = {
                "apiVersion": "coordination.k8s.io/v1",
                "kind": "Lease",
                "metadata": {"name": NODE, "namespace": "kube-node-lease"},
                "spec": {"holderIdentity": NODE, "renewTime": renewed, "leaseDurationSeconds": 40},
            }
            await self._apply(_LEASES, lease)
            await asyncio.sleep(HEARTBEAT_S)

    async def _apply(self, collection: str, obj: Object, subresource: str = "") -> None:
        path = f"{collection}/{obj['metadata']['name']}{subresource}"
        query = f"?fieldManager={NODE}&force=true"
        await self._send("PATCH", path + query, obj, "application/apply-patch+yaml")

    async def _follow(self, plural: str, group: asyncio.TaskGroup, serve: Serve) -> None:
        """Watch a kind; without a version the server begins with what is there."""
        while True:
            with contextlib.suppress(aiohttp.ClientError, TimeoutError, ValueError):
                async with self.http.get(f"/api/v1/{plural}?watch=1") as response:
                    response.raise_for_status()
                    async for line in response.content:
                        self._take(json.loads(line), group, serve)
            await asyncio.sleep(_RETRY_S)

    def _take(self, event: Object, group: asyncio.TaskGroup, serve: Serve) -> None:
        obj = event["object"]
        if event["type"] not in {"ADDED", "MODIFIED"}:
            self._begun.pop((obj.get("metadata") or {}).get("uid", ""), None)
            return
        work = serve(obj)
        if work is None:
            return
        begun = self._begun.setdefault(obj["metadata"]["uid"], set())
        if work.key not in begun:
            begun.add(work.key)
            group.create_task(self._do(work))

    async def _do(self, work: Work) -> None:
        await asyncio.sleep(work.wait_s)
        async with self._places:
            await work.effect()

    def _pod(self, pod: Object) -> Work | None:
        step = next_step(pod, self.behaviour)
        match step:
            case None:
                return None
            case Step.BIND:
                return Work(step.value, 0.0, lambda: self._bind(pod))
            case Step.REMOVE:
                grace_s = float(pod["metadata"].get("deletionGracePeriodSeconds") or 0)
                wait_s = min(grace_s, self.behaviour.stop_s)
                return Work(step.value, wait_s, lambda: self._remove(pod))
            case _:
                return Work(step.value, self.behaviour.start_s, lambda: self._report(pod, step))

    def _claim(self, claim: Object) -> Work | None:
        if not wants_room(claim):
            return None
        status = {
            "phase": "Bound",
            "accessModes": claim["spec"]["accessModes"],
            "capacity": {"storage": _asked(claim)},
        }
        # A claim grows more than once: each size is a work of its own.
        key = f"provision {_asked(claim)}"
        return Work(key, 0.0, lambda: self._patch_status("persistentvolumeclaims", claim, status))

    async def _bind(self, pod: Object) -> None:
        meta = pod["metadata"]
        body = {
            "apiVersion": "v1",
            "kind": "Binding",
            "metadata": {"name": meta["name"], "uid": meta["uid"]},
            "target": {"kind": "Node", "name": NODE},
        }
        await self._send("POST", f"{_path('pods', pod)}/binding", body)

    async def _report(self, pod: Object, step: Step) -> None:
        status = pod_status(pod, step, self.behaviour, _now())
        await self._patch_status("pods", pod, status)

    async def _remove(self, pod: Object) -> None:
        options = {"gracePeriodSeconds": 0, "preconditions": {"uid": pod["metadata"]["uid"]}}
        await self._send("DELETE", _path("pods", pod), options)

    async def _patch_status(self, plural: str, obj: Object, status: Object) -> None:
        body = {"metadata": {"uid": obj["metadata"]["uid"]}, "status": status}
        path = f"{_path(plural, obj)}/status"
        await self._send("PATCH", path, body, "application/merge-patch+json")

    async def _send(
        self, method: str, path: str, body: Object, kind: str = "application/json"
    ) -> None:
        """Send a write; a server that has no time is asked again, a few times."""
        text, trouble = json.dumps(body), ""
        for _ in range(_TRIES):
            try:
                headers = {"Content-Type": kind}
                async with self.http.request(method, path, data=text, headers=headers) as answer:
                    words = await answer.text()
            except (aiohttp.ClientError, TimeoutError) as error:
                trouble = str(error)
            else:
                if answer.ok or answer.status in _OVERTAKEN:
                    return
                trouble = f"{answer.status} {words}"
            await asyncio.sleep(_RETRY_S)
        sys.stderr.write(f"stub kubelet: {method} {path}: {trouble}\n")


def _path(plural: str, obj: Object) -> str:
    meta = obj["metadata"]
    return f"/api/v1/namespaces/{meta['namespace']}/{plural}/{meta['name']}"


@asynccontextmanager
async def running(
    url: str, certificates: Path, behaviour: Behaviour = Behaviour()
) -> AsyncIterator[StubKubelet]:
    """Run a stub kubelet in this loop, as the administrator of the certificates."""
    trust = ssl.create_default_context(cafile=str(certificates / "ca.crt"))
    trust.load_cert_chain(certificates / "admin.crt", certificates / "admin.key")
    async with aiohttp.ClientSession(
        base_url=url,
        connector=aiohttp.TCPConnector(ssl=trust, limit=0),
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=10),
        read_bufsize=_LINE_BYTES,
        headers={"User-Agent": NODE},
    ) as http:
        kubelet = StubKubelet(http, behaviour)
        life = asyncio.create_task(kubelet.run())
        try:
            yield kubelet
        finally:
            life.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await life
    # TLS connections end a moment later: aiohttp's documentation, "Graceful Shutdown".
    await asyncio.sleep(0.1)


def start(url: str, certificates: Path, log: Path, behaviour: Behaviour = Behaviour()) -> Process:
    """Start a stub kubelet as a process of its own; `processes.end` ends it."""
    hack = Path(__file__).resolve().parent.parent
    options = [
        f"--url={url}",
        f"--certificates={certificates}",
        f"--start-s={behaviour.start_s}",
        f"--stop-s={behaviour.stop_s}",
        f"--address={behaviour.address}",
    ]
    command = [sys.executable, "-m", "localkube.stubkubelet", *options]
    environment = {**os.environ, "PYTHONPATH": str(hack)}
    return processes.spawn(command, log, environment, dies_with_parent=True)


async def _serve(url: str, certificates: Path, behaviour: Behaviour) -> None:
    async with running(url, certificates, behaviour):
        await asyncio.Event().wait()


def main() -> None:
    """Serve one API server until the process is ended."""
    parser = argparse.ArgumentParser("stubkubelet", description="A stub kubelet for a test server.")
    parser.add_argument("--url", required=True, help="address of the API server")
    parser.add_argument("--certificates", required=True, type=Path, help="folder of admin.crt")
    usual = Behaviour()
    parser.add_argument("--start-s", type=float, default=usual.start_s)
    parser.add_argument("--stop-s", type=float, default=usual.stop_s)
    parser.add_argument("--address", default=usual.address)
    given = parser.parse_args()
    behaviour = Behaviour(given.start_s, given.stop_s, address=given.address)
    asyncio.run(_serve(given.url, given.certificates, behaviour))


if __name__ == "__main__":
    main()
