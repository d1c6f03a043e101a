"""A pod of each tier is lost: what only that tier does stops, a new pod comes, it works again."""

import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Event, Thread

import pytest
from e2e.harness.chatbot import Chatbot
from e2e.harness.people import works_again
from e2e.harness.waiting import until

from chatbot_core.names import Component
from firstrun import questions
from firstrun.service import Service, ServiceError

GAP_TIMEOUT_S = 60.0
#: No new pod takes a document sooner; a running worker does so in a tenth of it.
LEAST_START_S = 1.0


def searches(service: Service) -> None:
    found = service.call("GET", "/api/search?q=lighthouse")
    if found["coverage"] < 1:
        raise ServiceError("part of the index is missing", 503)


def asks(service: Service) -> None:
    service.ask(questions.chosen().text)


def uploads(service: Service) -> None:
    service.upload(f"{secrets.token_hex(4)}.txt", secrets.token_hex(40).encode())


def reads(service: Service) -> None:
    documents = service.call("GET", "/api/documents?limit=1")["items"]
    service.send("GET", f"/api/documents/{documents[0]['id']}/content", None, {})


LOSSES: dict[str, tuple[Component, Callable[[Service], None]]] = {
    "without a shard no search is complete": (Component.SHARD, searches),
    "without the database nothing is found": (Component.DATABASE, searches),
    "without Ollama nothing is written": (Component.INFERENCE, asks),
    "without the store nothing is uploaded": (Component.STORE, uploads),
    "without the store nothing is read": (Component.STORE, reads),
}


@pytest.mark.parametrize("loss", LOSSES)
def test_the_effect_of_a_lost_pod_is_seen_and_ends(
    chatbot: Chatbot, service: Service, loss: str
) -> None:
    component, does = LOSSES[loss]
    lost = chatbot.pods(component)[0]
    with refusals(lambda: does(service)) as statuses:
        chatbot.kill(lost)
        until(loss, lambda: bool(statuses) or None, GAP_TIMEOUT_S)
        chatbot.wait_replaced(lost, component)
    # 0: a reply that had begun broke off with the pod that was sending it.
    assert 503 in statuses
    assert set(statuses) <= {0, 503}
    works_again(chatbot, service)


def test_without_an_ingest_worker_a_document_stays_queued(
    chatbot: Chatbot, service: Service
) -> None:
    (lost,) = chatbot.pods(Component.INGEST)
    chatbot.kill(lost)
    code = secrets.token_hex(6)
    document = service.upload(f"{code}.txt", f"The passphrase of today is {code}.".encode())
    queued_s = seconds_queued(service, document)
    assert queued_s > LEAST_START_S
    service.wait_searchable(document, 60)
    chatbot.wait_replaced(lost, Component.INGEST)
    works_again(chatbot, service)


def test_without_one_api_replica_the_other_goes_on(chatbot: Chatbot, service: Service) -> None:
    lost, kept = chatbot.pods(Component.API)
    chatbot.kill(lost)
    until(
        "the other replica is alone",
        lambda: ready_pods(chatbot, Component.API) == {kept.uid} or None,
        GAP_TIMEOUT_S,
        poll_s=0.05,
    )
    answered = attempt(lambda: searches(service)) or attempt(lambda: searches(service))
    assert answered
    assert ready_pods(chatbot, Component.API) == {kept.uid}
    chatbot.wait_replaced(lost, Component.API)
    works_again(chatbot, service)


def seconds_queued(service: Service, document: str) -> float:
    began_s = time.monotonic()
    while service.state_of(document) == "Queued":
        assert time.monotonic() - began_s < GAP_TIMEOUT_S
        time.sleep(0.1)
    return time.monotonic() - began_s


def ready_pods(chatbot: Chatbot, component: Component) -> set[str]:
    return {pod.uid for pod in chatbot.pods(component) if pod.ready}


def attempt(work: Callable[[], None]) -> bool | None:
    try:
        work()
    except ServiceError:
        return None
    return True


@contextmanager
def refusals(work: Callable[[], None]) -> Iterator[list[int]]:
    """Do the work again and again in the background; yield the statuses of what was refused."""
    statuses: list[int] = []
    done = Event()

    def again() -> None:
        while not done.is_set():
            try:
                work()
            except ServiceError as error:
                statuses.append(error.status)
            done.wait(0.1)

    thread = Thread(target=again)
    thread.start()
    try:
        yield statuses
    finally:
        done.set()
        thread.join()
