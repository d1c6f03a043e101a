"""Kubernetes Events: what changed and why, told once.

One event per executed Scale or Delete, per taken-over object, and per changed (condition, reason).
The same words about the same object within ten minutes are told once.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from chatbot_core import names
from chatbot_core.errors import ChatbotError
from chatbot_core.reasons import STALLING
from chatbot_operator.kinds import Object
from chatbot_operator.kube import NAMESPACE_TERMINATING, Kube, WriteRefused
from chatbot_operator.model import Json, Owner

REPORTER: Final = f"{names.GROUP}/operator"
SAME_WITHIN_S: Final = 600.0
#: Limit of the field `note` in events.k8s.io/v1.
NOTE_MAX_LENGTH: Final = 1024

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class News:
    """One thing to tell about a ChatbotCluster."""

    reason: str
    action: str
    note: str
    warning: bool = False
    outlives: bool = False  # told of the Namespace, in `default`, where the object's own ends


def of_conditions(old: Json, new: Json) -> tuple[News, ...]:
    """Return one piece of news for every (condition, reason) that differs. Pure."""
    before = {c["type"]: (c["status"], c["reason"]) for c in old.get("conditions") or ()}
    news = []
    for condition in new.get("conditions") or ():
        kind, status, reason = condition["type"], condition["status"], condition["reason"]
        if before.get(kind) != (status, reason):
            words = condition.get("message") or ""
            note = f"{kind} is {status}: {words}" if words else f"{kind} is {status}"
            news.append(News(reason, "Observe", note, warning=reason in STALLING))
    return tuple(news)


class EventWriter:
    """Writes news as events.k8s.io/v1; a failure is logged, since an event decides nothing."""

    def __init__(self, kube: Kube, now_s: Callable[[], float], instance: str) -> None:
        self._kube = kube
        self._now_s = now_s
        self._instance = instance
        self._told_s: dict[str, float] = {}

    async def tell(self, owner: Owner, news: Iterable[News]) -> None:
        """Write what was not told within the last ten minutes."""
        for item in news:
            now_s = self._now_s()
            words = f"{owner.uid}/{item.reason}/{item.note}"
            if now_s - self._told_s.get(words, -SAME_WITHIN_S) < SAME_WITHIN_S:
                continue
            self._told_s = {k: s for k, s in self._told_s.items() if now_s - s < SAME_WITHIN_S}
            self._told_s[words] = now_s
            event = _event(owner, item, now_s, self._instance)
            refused = await self._write(event)
            if refused is not None and refused.reason == NAMESPACE_TERMINATING and item.outlives:
                await self._write(_of_namespace(event))

    async def _write(self, event: Object) -> WriteRefused | None:
        try:
            answer = await self._kube.create(event)
        except ChatbotError as error:
            _log.warning("event not written", extra={"error": str(error)})
            return None
        if not isinstance(answer, WriteRefused):
            return None
        _log.warning("event refused", extra={"error": answer.message, "note": event["note"]})
        return answer


def _of_namespace(event: Object) -> Object:
    """Return the same news about the object's namespace, where Events of such objects stand."""
    meta = event["metadata"]
    namespace = {"apiVersion": "v1", "kind": "Namespace", "name": meta["namespace"]}
    note = f"{names.KIND} {event['regarding']['name']}: {event['note']}"
    return {
        **event,
        "metadata": {**meta, "namespace": "default"},
        "note": note[:NOTE_MAX_LENGTH],
        "regarding": namespace,
    }


def _event(owner: Owner, news: News, now_s: float, instance: str) -> Object:
    distinct = hashlib.sha256(f"{owner.uid}{news}{now_s}".encode()).hexdigest()[:16]
    return {
        "apiVersion": "events.k8s.io/v1",
        "kind": "Event",
        "metadata": {"name": f"{owner.name}.{distinct}", "namespace": owner.namespace},
        "eventTime": datetime.fromtimestamp(now_s, UTC).isoformat(timespec="microseconds"),
        "type": "Warning" if news.warning else "Normal",
        "reason": news.reason,
        "action": news.action,
        "note": news.note[:NOTE_MAX_LENGTH],
        "reportingController": REPORTER,
        "reportingInstance": instance,
        "regarding": {
            "apiVersion": names.API_VERSION,
            "kind": names.KIND,
            "namespace": owner.namespace,
            "name": owner.name,
            "uid": owner.uid,
        },
    }
