"""What stays when an object goes: the data with Retain, nothing with Delete."""

import secrets

from e2e.conftest import ONE_API_REPLICA, SMALL
from e2e.harness.chatbot import ALL_KINDS, Chatbot
from e2e.harness.waiting import until

from firstrun import questions
from firstrun.questions import Question

GONE_TIMEOUT_S = 90.0


def test_with_retain_the_old_document_is_citable_after_the_next_apply(neighbour: Chatbot) -> None:
    code = secrets.token_hex(6)
    admin = neighbour.admin()
    document = admin.upload("vault.txt", f"The vault in Ostbrook opens with {code}.".encode())
    admin.wait_searchable(document, 60)
    neighbour.delete()
    until("every pod is gone", lambda: not neighbour.owned("pod") or None, GONE_TIMEOUT_S)
    assert neighbour.owned("persistentvolumeclaim") != []
    assert neighbour.owned("deployment,statefulset,service,configmap") == []

    neighbour.apply({**SMALL, **ONE_API_REPLICA, "deletionPolicy": "Retain"})
    neighbour.wait_ready()
    fact = Question("What opens the vault in Ostbrook?", (code,), "vault.txt")
    citation = questions.cited(neighbour.admin().ask(fact.text), fact)
    assert citation is not None
    assert citation["documentId"] == document


def test_with_delete_nothing_is_left(chatbot: Chatbot, neighbour: Chatbot) -> None:
    neighbour.patch({"deletionPolicy": "Delete"})
    until(
        "the policy is in force",
        lambda: neighbour.conditions().get("Ready") is not None or None,
        GONE_TIMEOUT_S,
    )
    chatbot.delete()
    neighbour.delete()
    until("both namespaces are empty", lambda: not rest(chatbot, neighbour) or None, GONE_TIMEOUT_S)


def rest(*chatbots: Chatbot) -> list[str]:
    """Return what is left of the objects, and of whatever else no new namespace has."""
    own = {"ServiceAccount/default", "ConfigMap/kube-root-ca.crt"}
    lists = [chatbot.get(ALL_KINDS) or {"items": []} for chatbot in chatbots]
    found = [one for items in lists for one in items["items"]]
    return sorted({f"{one['kind']}/{one['metadata']['name']}" for one in found} - own)
