"""What a person does after something was lost: asks again, as Retry-After says."""

from e2e.harness.chatbot import Chatbot
from e2e.harness.waiting import until

from firstrun import questions
from firstrun.service import Service, ServiceError

UNAVAILABLE = 503
AGAIN_TIMEOUT_S = 15.0


def works_again(chatbot: Chatbot, service: Service) -> None:
    """Wait until a question is answered and cited; the API hears of new pods by heartbeats."""
    chatbot.wait_ready()
    question = questions.chosen()

    def cited() -> bool:
        try:
            return questions.cited(service.ask(question.text), question) is not None
        except ServiceError as error:
            if error.status != UNAVAILABLE:
                raise
            return False

    until("a question works again", cited, AGAIN_TIMEOUT_S)
