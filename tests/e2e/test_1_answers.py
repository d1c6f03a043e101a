"""The whole service answers, from the documents, with the words of its own Ollama pod."""

import secrets
from pathlib import Path

import pytest
from e2e.harness.chatbot import Chatbot
from e2e.harness.cluster import Cluster

from chatbot_core import names
from environment import ROOT
from firstrun import questions
from firstrun.questions import Question
from firstrun.service import Service, ServiceError

#: questions.yaml is no object; what it holds is asked above.
EXAMPLES = sorted(set((ROOT / "examples").glob("*.yaml")) - {questions.QUESTIONS})


def test_the_answer_comes_from_the_ollama_pod(chatbot: Chatbot, service: Service) -> None:
    question = questions.chosen()
    asked_before = ollama_chats(chatbot)
    answer = service.ask(question.text)
    assert questions.cited(answer, question) is not None
    assert answer.done["usage"]["answerTokens"] == answer.done["usage"]["streamedTokens"]
    assert answer.done["usage"]["streamedTokens"] == answer.tokens > 0
    assert answer.done["model"] == "smollm2:135m"
    assert ollama_chats(chatbot) == asked_before + 1


def test_a_random_fact_in_a_fresh_document_is_found_and_cited(service: Service) -> None:
    code = f"{secrets.randbelow(10**8):08d}"
    text = (
        "# The lighthouse of Varnholm\n\n"
        "The lighthouse keeper of Varnholm retired last winter after forty years.\n\n"
        f"The secret door code of the Varnholm lighthouse is {code}.\n\n"
        "Visitors may climb the tower on Sundays.\n"
    )
    name = f"varnholm-{code}.md"
    document = service.upload(name, text.encode())
    service.wait_searchable(document, 30)
    fact = Question("What is the door code of the Varnholm lighthouse?", (code,), name)
    answer = service.ask(fact.text)
    citation = questions.cited(answer, fact)
    assert citation is not None
    assert citation["documentId"] == document
    service.call("DELETE", f"/api/documents/{document}")
    assert code not in str(service.ask(fact.text).citations)


def test_nine_of_ten_questions_at_temperature_0_are_right(service: Service) -> None:
    asked = questions.every()[:10]
    assert len({question.text for question in asked}) == 10
    wrong = [
        question.text
        for question in asked
        if not questions.right(service.ask(question.text), question)
    ]
    assert len(wrong) <= 1, wrong


def test_two_objects_in_two_namespaces_know_nothing_of_each_other(
    service: Service, neighbour: Chatbot
) -> None:
    other = neighbour.admin()
    assert other.url != service.url
    assert other.call("GET", "/api/documents")["items"] == []
    assert len(service.call("GET", "/api/documents")["items"]) >= len(questions.documents())
    with pytest.raises(ServiceError) as refused:
        Service(other.url, service.token).call("GET", "/api/me")
    assert refused.value.status == 401


def test_ready_is_what_kubectl_waits_for(chatbot: Chatbot) -> None:
    chatbot.kubectl.run(
        *("wait", "--for=condition=Ready", f"cbc/{chatbot.name}", "--timeout=300s"),
        *("--namespace", chatbot.namespace),
    )
    wide = chatbot.kubectl.run("get", "cbc", "--namespace", chatbot.namespace, "-o", "wide")
    assert "True" in wide


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda p: p.name)
def test_every_example_is_accepted(cluster: Cluster, path: Path) -> None:
    cluster.kubectl.run("apply", "--dry-run=server", "--server-side", "-f", str(path))


def ollama_chats(chatbot: Chatbot) -> int:
    """Count the chat requests that Ollama's own log shows."""
    (pod,) = chatbot.pods(names.Component.INFERENCE)
    log = chatbot.kubectl.run("logs", "-n", chatbot.namespace, pod.name, "-c", "ollama")
    return sum(1 for line in log.splitlines() if "/api/chat" in line and "POST" in line)
