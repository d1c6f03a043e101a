"""The API server as dicts. The only file that imports kubernetes.aio.

Generic calls on the static paths of `kinds`: typed models cannot express a partial apply and cost
memory. Every call has a timeout; what the server could not answer now (429, 5xx, a lost
connection) is `Unavailable` and tried again until the call's deadline. What it refuses for good
(400, 403, 409, 422) is a value, `WriteRefused`: a pass goes on with its other steps.
Server-side apply with force is idempotent, so a repeated write after a lost answer is harmless.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final, Protocol

import aiohttp
from kubernetes.aio import client, config

from chatbot_core import names
from chatbot_core.errors import Denied, NotFound, Unavailable
from chatbot_core.retry import Backoff, Clockwork, Deadline, retry
from chatbot_operator.fence import Fence
from chatbot_operator.kinds import Object, Ref, collection_path, object_path, ref_of, version_of

REQUEST_TIMEOUT_S: Final = 10.0
CALL_BUDGET_S: Final = 25.0
#: The server ends a watch after this; it sends bookmarks about every minute before.
WATCH_SERVER_S: Final = 60
#: No byte for this long means that the connection is dead, although nobody closed it.
WATCH_SILENCE_S: Final = 75.0
#: Objects a page of a list: what is parsed at once holds up the loop for about 10 ms.
PAGE: Final = 100

#: Why the API server lets nobody create anything (k8s.io/api/core/v1, NamespaceTerminatingCause).
NAMESPACE_TERMINATING: Final = "NamespaceTerminating"

_JSON: Final = "application/json"
_APPLY: Final = "application/apply-patch+yaml"
_MERGE: Final = "application/merge-patch+json"
_REFUSALS: Final = frozenset(
    {
        HTTPStatus.BAD_REQUEST,
        HTTPStatus.FORBIDDEN,
        HTTPStatus.NOT_FOUND,
        HTTPStatus.CONFLICT,
        HTTPStatus.GONE,
        HTTPStatus.UNPROCESSABLE_ENTITY,
    }
)
#: Server-side apply answers a misspelt field with 500 and these words (structured-merge-diff).
_UNKNOWN_FIELD: Final = "field not declared in schema"


@dataclass(frozen=True, slots=True)
class WriteRefused:
    """The API server refused a write for good; `message` is its own sentence."""

    code: int
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Page:
    """A part of one list, and the resourceVersion from which a watch of the whole goes on."""

    items: tuple[Object, ...]
    resource_version: str


@dataclass(frozen=True, slots=True)
class WatchEvent:
    """One line of a watch: ADDED, MODIFIED, DELETED or BOOKMARK."""

    type: str
    object: Object


class WatchExpiredError(Exception):
    """The server no longer knows the resourceVersion or the page (410 Gone): list again."""


class Kube(Protocol):
    """What the shell needs of an API server; the fake of the tests keeps the same promises."""

    async def get(self, ref: Ref) -> Object | None:
        """Return the live object, or None when there is none. Raises Unavailable, Denied."""
        ...

    def pages(self, kind: str, namespace: str, selector: str) -> AsyncIterator[Page]:
        """Yield all objects of a kind. Raises Unavailable, Denied, WatchExpiredError, NotFound."""
        ...

    def watch(
        self, kind: str, namespace: str, selector: str, resource_version: str
    ) -> AsyncIterator[WatchEvent]:
        """Yield changes until the server ends the watch. Raises Unavailable, WatchExpiredError."""
        ...

    async def apply(self, obj: Object, manager: str) -> Object | WriteRefused:
        """Server-side apply with force and strict fields. Raises Unavailable."""
        ...

    async def apply_status(self, obj: Object) -> Object | WriteRefused:
        """Server-side apply of the status subresource. Raises Unavailable."""
        ...

    async def replace(self, obj: Object) -> Object | WriteRefused:
        """PUT of a whole object with its resourceVersion. Raises Unavailable."""
        ...

    async def set_finalizers(
        self, live: Object, finalizers: Sequence[str]
    ) -> Object | WriteRefused:
        """PATCH of the finalizers of exactly this version. Raises Unavailable."""
        ...

    async def create(self, obj: Object) -> Object | WriteRefused:
        """POST of a new object. Raises Unavailable."""
        ...

    async def delete(self, ref: Ref, uid: str, resource_version: str) -> WriteRefused | None:
        """Delete exactly this version in the background; absent is done. Raises Unavailable."""
        ...


OnCall = Callable[[str, str, int], None]


@dataclass(frozen=True, slots=True)
class _Request:
    verb: str
    kind: str
    method: str
    path: str
    query: tuple[tuple[str, str], ...] = ()
    body: Object | None = None
    content_type: str = _JSON


class KubeClient:
    """`Kube` over one connection pool. `on_call(verb, kind, status)` is told every answer.

    Every single request that writes, a repeated one too, passes the fence: it raises Denied.
    """

    def __init__(self, api: client.ApiClient, on_call: OnCall, fence: Fence) -> None:
        self._api = api
        self._on_call = on_call
        self._fence = fence

    async def close(self) -> None:
        """Close the connection pool."""
        await self._api.close()  # type: ignore[no-untyped-call] # generated code
        # TLS connections end a moment later: aiohttp's documentation, "Graceful Shutdown".
        await asyncio.sleep(0.1)

    async def get(self, ref: Ref) -> Object | None:
        """See `Kube.get`."""
        answer = await self._call(_Request("get", ref.kind, "GET", object_path(ref)))
        if not isinstance(answer, WriteRefused):
            return answer
        if answer.code == HTTPStatus.NOT_FOUND:
            return None
        raise Denied(answer.message)

    async def pages(self, kind: str, namespace: str, selector: str) -> AsyncIterator[Page]:
        """See `Kube.pages`: every page shows the state of the first one."""
        path = collection_path(kind, namespace)
        query = (("limit", str(PAGE)), *((("labelSelector", selector),) if selector else ()))
        rest = ""
        while True:
            more = (("continue", rest),) if rest else ()
            answer = await self._call(_Request("list", kind, "GET", path, (*query, *more)))
            if isinstance(answer, WriteRefused):
                if answer.code == HTTPStatus.GONE:
                    raise WatchExpiredError(answer.message)
                if answer.code == HTTPStatus.NOT_FOUND:
                    raise NotFound(f"kind {kind} is not known to this server")
                raise Denied(answer.message)
            # Items of a list carry no kind of their own.
            head = {"apiVersion": answer["apiVersion"], "kind": kind}
            items = tuple({**item, **head} for item in answer.get("items") or ())
            yield Page(items, str(answer["metadata"]["resourceVersion"]))
            rest = str(answer["metadata"].get("continue") or "")
            if not rest:
                return

    async def watch(
        self, kind: str, namespace: str, selector: str, resource_version: str
    ) -> AsyncIterator[WatchEvent]:
        """See `Kube.watch`."""
        query = (
            ("watch", "1"),
            ("allowWatchBookmarks", "true"),
            ("timeoutSeconds", str(WATCH_SERVER_S)),
            ("resourceVersion", resource_version),
            *((("labelSelector", selector),) if selector else ()),
        )
        request = _Request("watch", kind, "GET", collection_path(kind, namespace), query)
        timeout = aiohttp.ClientTimeout(
            total=None, sock_connect=REQUEST_TIMEOUT_S, sock_read=WATCH_SILENCE_S
        )
        try:
            response = await self._send(request, timeout)
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise Unavailable("Kubernetes API", _words(error)) from error
        try:
            self._on_call(request.verb, request.kind, response.status)
            if response.status != HTTPStatus.OK:
                _raise_watch_error(response.status, await response.text())
            async for line in response.content:
                yield _watch_event(line)
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
            raise Unavailable("Kubernetes API", _words(error)) from error
        finally:
            response.close()

    async def apply(self, obj: Object, manager: str) -> Object | WriteRefused:
        """See `Kube.apply`."""
        return await self._apply(obj, manager, "")

    async def apply_status(self, obj: Object) -> Object | WriteRefused:
        """See `Kube.apply_status`."""
        return await self._apply(obj, names.STATUS_MANAGER, "status")

    async def _apply(self, obj: Object, manager: str, subresource: str) -> Object | WriteRefused:
        ref = ref_of(obj)
        query = (("fieldManager", manager), ("force", "true"), ("fieldValidation", "Strict"))
        path = object_path(ref, subresource)
        verb = "apply-status" if subresource else "apply"
        return await self._call(_Request(verb, ref.kind, "PATCH", path, query, obj, _APPLY))

    async def replace(self, obj: Object) -> Object | WriteRefused:
        """See `Kube.replace`."""
        ref = ref_of(obj)
        query = (("fieldManager", names.MANAGER), ("fieldValidation", "Strict"))
        return await self._call(_Request("replace", ref.kind, "PUT", object_path(ref), query, obj))

    async def set_finalizers(
        self, live: Object, finalizers: Sequence[str]
    ) -> Object | WriteRefused:
        """See `Kube.set_finalizers`."""
        ref, query = ref_of(live), (("fieldManager", names.MANAGER),)
        version = version_of(live)
        body = {"metadata": {"resourceVersion": version, "finalizers": list(finalizers)}}
        return await self._call(
            _Request("patch", ref.kind, "PATCH", object_path(ref), query, body, _MERGE)
        )

    async def create(self, obj: Object) -> Object | WriteRefused:
        """See `Kube.create`."""
        ref = ref_of(obj)
        query = (("fieldManager", names.MANAGER), ("fieldValidation", "Strict"))
        path = collection_path(ref.kind, ref.namespace)
        return await self._call(_Request("create", ref.kind, "POST", path, query, obj))

    async def delete(self, ref: Ref, uid: str, resource_version: str) -> WriteRefused | None:
        """See `Kube.delete`."""
        body = {
            "apiVersion": "v1",
            "kind": "DeleteOptions",
            "propagationPolicy": "Background",
            "preconditions": {"uid": uid, "resourceVersion": resource_version},
        }
        answer = await self._call(
            _Request("delete", ref.kind, "DELETE", object_path(ref), (), body)
        )
        if isinstance(answer, WriteRefused) and answer.code != HTTPStatus.NOT_FOUND:
            return answer
        return None

    async def _call(self, request: _Request) -> Object | WriteRefused:
        clockwork = Clockwork(time.monotonic, asyncio.sleep, random.random)
        deadline = Deadline.after(time.monotonic(), CALL_BUDGET_S)

        async def attempt() -> Object | WriteRefused:
            return await self._once(request)

        return await retry(attempt, deadline, clockwork, Backoff(base_s=0.2, max_s=5.0))

    async def _once(self, request: _Request) -> Object | WriteRefused:
        try:
            response = await self._send(request, aiohttp.ClientTimeout(total=REQUEST_TIMEOUT_S))
            text = await response.text()
        except (aiohttp.ClientError, OSError, TimeoutError, UnicodeDecodeError) as error:
            self._on_call(request.verb, request.kind, 0)
            raise Unavailable("Kubernetes API", _words(error)) from error
        self._on_call(request.verb, request.kind, response.status)
        if response.status < HTTPStatus.MULTIPLE_CHOICES:
            return _object(text)
        if response.status in _REFUSALS or _UNKNOWN_FIELD in text:
            return _refused(response.status, text)
        raise Unavailable(
            "Kubernetes API",
            f"{response.status} {response.reason}",
            _retry_after_s(response.headers),
        )

    async def _send(self, request: _Request, limits: aiohttp.ClientTimeout) -> Any:
        method, url, headers, body, _ = await self._api.param_serialize(
            request.method,
            request.path,
            query_params=list(request.query),
            header_params={"Accept": _JSON, "Content-Type": request.content_type},
            body=request.body,
            auth_settings=["BearerToken"],
        )
        made = (method, url, headers, body)
        if method == "GET":
            return (await self._api.call_api(*made, _request_timeout=limits)).response
        # Asked last: a process frozen between the fence and the socket sends its request late.
        with self._fence.writing(REQUEST_TIMEOUT_S) as timeout_s:
            cut = aiohttp.ClientTimeout(total=timeout_s)
            return (await self._api.call_api(*made, _request_timeout=cut)).response


async def connect(
    on_call: OnCall = lambda verb, kind, status: None,
    user_agent: str = names.MANAGER,
    fence: Fence | None = None,
) -> KubeClient:
    """Return a client with the pod's service account, else with KUBECONFIG. Raises Unavailable."""
    configuration = client.Configuration()
    # Retries are ours (chatbot_core.retry): two layers of them multiply.
    configuration.retries = None
    try:
        if "KUBERNETES_SERVICE_HOST" in os.environ and "KUBECONFIG" not in os.environ:
            config.load_incluster_config(  # type: ignore[no-untyped-call] # generated code
                client_configuration=configuration
            )
        else:
            # The client read KUBECONFIG when it was imported; here the present one counts.
            await config.load_kube_config(  # type: ignore[no-untyped-call] # generated code
                config_file=os.environ.get("KUBECONFIG"), client_configuration=configuration
            )
    except config.ConfigException as error:
        raise Unavailable(
            "Kubernetes API", f"{error}; set KUBECONFIG or run in a pod with a service account"
        ) from error
    api = client.ApiClient(configuration)
    api.user_agent = user_agent
    return KubeClient(api, on_call, fence or Fence())


def _object(text: str) -> Object:
    try:
        answer = json.loads(text)
    except ValueError as error:
        raise Unavailable("Kubernetes API", f"its answer is no JSON: {error}") from error
    if not isinstance(answer, dict):
        raise Unavailable("Kubernetes API", "its answer is no object")
    return answer


def _refused(status: int, text: str) -> WriteRefused:
    try:
        answer = json.loads(text)
    except ValueError:
        answer = {}
    message = str(answer.get("message") or text or HTTPStatus(status).phrase)
    causes = {one.get("reason") for one in (answer.get("details") or {}).get("causes") or ()}
    if NAMESPACE_TERMINATING in causes:
        return WriteRefused(status, NAMESPACE_TERMINATING, message)
    return WriteRefused(status, str(answer.get("reason") or status), message)


def _watch_event(line: bytes) -> WatchEvent:
    event = json.loads(line)
    if event["type"] == "ERROR":
        _raise_watch_error(int(event["object"].get("code", 0)), str(event["object"]))
    return WatchEvent(str(event["type"]), event["object"])


def _raise_watch_error(status: int, text: str) -> None:
    if status == HTTPStatus.GONE:
        raise WatchExpiredError(text)
    if status == HTTPStatus.FORBIDDEN:
        raise Denied(text)
    if status == HTTPStatus.NOT_FOUND:
        raise NotFound("the kind is no longer known to this server")
    raise Unavailable("Kubernetes API", f"watch ended with {status}")


def _retry_after_s(headers: Mapping[str, str]) -> float | None:
    try:
        return float(headers["Retry-After"])
    except (KeyError, ValueError):
        return None


def _words(error: BaseException) -> str:
    return str(error) or type(error).__name__
