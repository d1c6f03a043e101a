"""What every `Kube` promises; run against the fake and against a real API server."""

from __future__ import annotations

import asyncio

from chatbot_core import names
from chatbot_operator.kinds import Object, Ref, uid_of, version_of
from chatbot_operator.kube import Kube, WriteRefused

SELECTOR = "team=red"


def config_map(namespace: str, name: str, text: str) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name, "namespace": namespace, "labels": {"team": "red"}},
        "data": {"text": text},
    }


async def applied(kube: Kube, obj: Object) -> Object:
    answer = await kube.apply(obj, "tester")
    assert not isinstance(answer, WriteRefused), answer
    return answer


async def an_absent_object_is_none(kube: Kube, namespace: str) -> None:
    assert await kube.get(Ref("ConfigMap", namespace, "absent")) is None


async def an_apply_creates_and_then_updates(kube: Kube, namespace: str) -> None:
    first = await applied(kube, config_map(namespace, "updated", "one"))
    second = await applied(kube, config_map(namespace, "updated", "two"))
    live = await kube.get(Ref("ConfigMap", namespace, "updated"))
    assert live is not None
    assert live["data"] == {"text": "two"}
    assert uid_of(first) == uid_of(second) == uid_of(live)
    assert int(version_of(second)) > int(version_of(first))


async def an_apply_with_a_uid_never_creates(kube: Kube, namespace: str) -> None:
    obj = config_map(namespace, "never", "one")
    obj["metadata"]["uid"] = "11111111-2222-3333-4444-555555555555"
    answer = await kube.apply(obj, "tester")
    assert isinstance(answer, WriteRefused)
    assert answer.code == 409
    assert await kube.get(Ref("ConfigMap", namespace, "never")) is None


async def an_apply_to_an_old_version_is_refused(kube: Kube, namespace: str) -> None:
    old = await applied(kube, config_map(namespace, "overtaken", "one"))
    await applied(kube, config_map(namespace, "overtaken", "two"))
    late = config_map(namespace, "overtaken", "three")
    late["metadata"]["resourceVersion"] = version_of(old)
    answer = await kube.apply(late, "tester")
    assert isinstance(answer, WriteRefused)
    assert answer.code == 409
    live = await kube.get(Ref("ConfigMap", namespace, "overtaken"))
    assert live is not None
    assert live["data"] == {"text": "two"}


async def a_second_create_is_refused(kube: Kube, namespace: str) -> None:
    obj = config_map(namespace, "created", "one")
    assert not isinstance(await kube.create(obj), WriteRefused)
    answer = await kube.create(obj)
    assert isinstance(answer, WriteRefused)
    assert (answer.code, answer.reason) == (409, "AlreadyExists")


async def a_replace_of_an_old_version_is_refused(kube: Kube, namespace: str) -> None:
    old = await applied(kube, config_map(namespace, "replaced", "one"))
    await applied(kube, config_map(namespace, "replaced", "two"))
    answer = await kube.replace(old)
    assert isinstance(answer, WriteRefused)
    assert answer.code == 409


async def a_delete_hits_one_version_only(kube: Kube, namespace: str) -> None:
    ref = Ref("ConfigMap", namespace, "deleted")
    old = await applied(kube, config_map(namespace, "deleted", "one"))
    live = await applied(kube, config_map(namespace, "deleted", "two"))
    refused = await kube.delete(ref, uid_of(old), version_of(old))
    assert isinstance(refused, WriteRefused)
    assert refused.code == 409
    assert await kube.delete(ref, uid_of(live), version_of(live)) is None
    assert await kube.get(ref) is None
    assert await kube.delete(ref, uid_of(live), version_of(live)) is None


async def finalizers_are_set_on_one_version_and_the_last_one_lets_go(
    kube: Kube, namespace: str
) -> None:
    ref = Ref("ConfigMap", namespace, "held")
    old = await applied(kube, config_map(namespace, "held", "one"))
    live = await kube.set_finalizers(old, ["example.com/theirs", names.FINALIZER])
    assert not isinstance(live, WriteRefused)
    assert live["metadata"]["finalizers"] == ["example.com/theirs", names.FINALIZER]
    refused = await kube.set_finalizers(old, [])
    assert isinstance(refused, WriteRefused)
    assert refused.code == 409
    assert await kube.delete(ref, uid_of(live), version_of(live)) is None
    going = await kube.get(ref)
    assert going is not None
    assert "deletionTimestamp" in going["metadata"]
    assert not isinstance(await kube.set_finalizers(going, []), WriteRefused)
    assert await kube.get(ref) is None


async def a_watch_continues_from_a_list(kube: Kube, namespace: str) -> None:
    await applied(kube, config_map(namespace, "watched", "one"))
    pages = [page async for page in kube.pages("ConfigMap", namespace, SELECTOR)]
    items = [item for page in pages for item in page.items]
    assert "watched" in [item["metadata"]["name"] for item in items]
    assert all(item["kind"] == "ConfigMap" for item in items)
    live = await applied(kube, config_map(namespace, "watched", "two"))
    await kube.delete(Ref("ConfigMap", namespace, "watched"), uid_of(live), version_of(live))
    seen = []
    async with asyncio.timeout(10):
        async for event in kube.watch("ConfigMap", namespace, SELECTOR, pages[-1].resource_version):
            if event.type != "BOOKMARK" and event.object["metadata"]["name"] == "watched":
                seen.append((event.type, event.object["data"]["text"]))
            if len(seen) == 2:
                break
    assert seen == [("MODIFIED", "two"), ("DELETED", "two")]


async def the_pages_of_a_list_show_one_state(kube: Kube, namespace: str) -> None:
    """The tester has set the size of a page to two."""
    wanted = [f"paged-{number}" for number in range(5)]
    for name in wanted:
        await applied(kube, config_map(namespace, name, "one"))
    pages = []
    async for page in kube.pages("ConfigMap", namespace, SELECTOR):
        if not pages:
            await applied(kube, config_map(namespace, "paged-9", "too late"))
        pages.append(page)
    found = [item["metadata"]["name"] for page in pages for item in page.items]
    assert sorted(name for name in found if name.startswith("paged")) == wanted
    assert all(len(page.items) <= 2 for page in pages)
    assert len({page.resource_version for page in pages}) == 1


ALL = (
    the_pages_of_a_list_show_one_state,
    an_absent_object_is_none,
    an_apply_creates_and_then_updates,
    an_apply_with_a_uid_never_creates,
    an_apply_to_an_old_version_is_refused,
    a_second_create_is_refused,
    a_replace_of_an_old_version_is_refused,
    a_delete_hits_one_version_only,
    finalizers_are_set_on_one_version_and_the_last_one_lets_go,
    a_watch_continues_from_a_list,
)
