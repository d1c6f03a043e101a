"""Named predicates: None, or the `Refusal` that blocks a step and fills a condition."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from chatbot_core import names, quantity
from chatbot_core.errors import Invalid
from chatbot_core.names import Component
from chatbot_core.reasons import Reason
from chatbot_core.v1alpha1 import ChatbotClusterSpec
from chatbot_core.v1alpha1.storage import Documents
from chatbot_operator.model import (
    Child,
    Fact,
    Observed,
    Owner,
    Refusal,
    Secret,
    Step,
    step_key,
)

#: The runtime is asked every minute at the least.
COUNTS_MAX_AGE_S: Final = 150.0


def foreign_object_not_ours(child: Child, owner: Owner) -> Refusal | None:
    """Refuse to touch what somebody else made, or what a former object of this name left.

    Ours: owned by this very object; kept for an object of this name, without an owner; or
    applied by us, with its owner reference removed by hand.
    """
    kept_for_us = child.retained_from == names.retained_from(owner.namespace, owner.name)
    if child.owner_uid == owner.uid:
        return None
    if not child.owner_uid and (kept_for_us or child.managed is not None):
        return None
    what = f"{child.kind} {child.name}"
    if child.adopter:
        return Refusal(
            "foreign_object_not_ours",
            Reason.FOREIGN_OBJECT,
            f"{what} belongs to {child.adopter} now: remove that owner reference",
        )
    made_by_us = child.labels.get(names.LABEL_MANAGED_BY) == names.MANAGER
    if child.owner_uid and (made_by_us or child.managed is not None):
        return Refusal(
            "foreign_object_not_ours",
            Reason.WAITING_FOR_CLEANUP,
            f"{what} still belongs to a deleted object of this name and is being removed",
        )
    return Refusal(
        "foreign_object_not_ours",
        Reason.FOREIGN_OBJECT,
        f"{what} exists and is not ours: rename or delete it, or rename the {names.KIND}",
    )


def volume_never_shrinks(wanted: str, child: Child) -> Refusal | None:
    """Refuse a claim that would ask for less than it has: Kubernetes cannot do it.

    `wanted` is the size to ask for, "" for a child that is no claim.
    """
    if not wanted or not child.requested:
        return None
    try:
        shrinks = quantity.parse(wanted) < quantity.parse(child.requested)
    except Invalid:
        # A form of quantity that we never write: the API server is the judge.
        return None
    if not shrinks:
        return None
    return Refusal(
        "volume_never_shrinks",
        Reason.VOLUME_CANNOT_SHRINK,
        f"claim {child.name} has {child.requested} and cannot shrink to {wanted}: "
        f"state {child.requested} or more",
    )


def is_more(size: str, than: str) -> bool:
    """Return whether a claim's size is larger than another; an unknown one ("") never is."""
    try:
        return bool(size and than) and quantity.parse(size) > quantity.parse(than)
    except Invalid:
        return False


def cache_is_settled(observed: Observed) -> Refusal | None:
    """Refuse a destructive step while our picture of the children may be old or partial."""
    if observed.children_complete and observed.settled:
        return None
    return Refusal(
        "cache_is_settled",
        Reason.STATUS_UNKNOWN,
        "the watch has not shown our last write yet; nothing is removed before it has",
    )


def store_holds_no_documents(
    listed: frozenset[str], observed: Observed, now_s: float
) -> Refusal | None:
    """Refuse to follow a spec that lists a store no more which holds documents, or may do so.

    A store was there if the config document lists it or a gateway of it runs.
    """
    owner, label = observed.owner, f"{Component.STORE.value}-"
    ours = [one for one in observed.children.values() if one.owner_uid == owner.uid]
    gateways = (one.labels.get(names.LABEL_COMPONENT, "") for one in ours if one.replicas)
    former = {name for one in ours for name in one.stores}
    former |= {one.removeprefix(label) for one in gateways if one.startswith(label)}
    leaving = sorted(former - listed)
    if not leaving:
        return None
    runtime = observed.runtime
    fresh = runtime.fresh(now_s, COUNTS_MAX_AGE_S)
    stored = runtime.value.stored if fresh and runtime.value else None
    if runtime.value is None or stored is None or runtime.value.database != "ok":
        message = f"spec.documents.stores: whether {', '.join(leaving)} still holds documents is "
        message += "not known now; list it until an API pod can tell"
        return Refusal("store_holds_no_documents", Reason.STATUS_UNKNOWN, message)
    full = [f"{name} ({stored[name]})" for name in leaving if stored.get(name)]
    if not full:
        return None
    message = f"spec.documents.stores: documents are still in {', '.join(full)}: "
    message += "list it again, or delete these documents; nothing of the spec is followed before"
    return Refusal("store_holds_no_documents", Reason.STORE_HOLDS_DOCUMENTS, message)


def answers_go_on(
    leaving: Child, staying: Mapping[str, bool], *, other_kind: bool
) -> Refusal | None:
    """Refuse to remove an inference workload before those that stay can take its questions.

    `staying` says of each wanted one whether all of it is ready. Where inference of another kind
    takes its place (`other_kind`: managed or external) all must be, else one is enough: of several
    endpoints one may be dead for long.
    """
    waiting = [name for name, ready in sorted(staying.items()) if not ready]
    if not waiting or (not other_kind and len(waiting) < len(staying)):
        return None
    return Refusal(
        "answers_go_on",
        Reason.ROLLING_OUT,
        f"{leaving.kind} {leaving.name} answers on until ready: {', '.join(waiting)}",
    )


def secret_is_there(
    name: str, keys: frozenset[str], fact: Fact[Secret], *, ours: bool
) -> Refusal | None:
    """Refuse pods that would hang on a Secret which is missing, partial or not read yet."""
    if not fact.known:
        message = f"Secret {name} has not been read yet"
        return Refusal("secret_is_there", Reason.STATUS_UNKNOWN, message)
    if fact.value is None:
        if ours:
            return None
        expected = ", ".join(sorted(keys))
        message = f"Secret {name} does not exist: create it with {expected}"
        return Refusal("secret_is_there", Reason.WAITING_FOR_SECRET, message)
    missing = sorted(keys - fact.value.keys)
    if not missing:
        return None
    cure = "delete it to get a new one" if ours else "add them"
    message = f"Secret {name} lacks {', '.join(missing)}, or they are empty: {cure}"
    return Refusal("secret_is_there", Reason.SECRET_KEY_MISSING, message)


def writes_are_allowed(spec: ChatbotClusterSpec, steps: Sequence[Step]) -> Refusal | None:
    """Refuse every step of an object that is suspended; its status is written all the same."""
    if not spec.suspend or not steps:
        return None
    first = steps[0]
    kind, name = step_key(first)
    message = (
        f"spec.suspend is true and {len(steps)} writes wait, "
        f"the first of them to {kind} {name} ({first.reason}): set it to false"
    )
    return Refusal("writes_are_allowed", Reason.SUSPENDED, message)


def spec_is_consistent(spec: ChatbotClusterSpec) -> Refusal | None:
    """Refuse contradictions that admission rules refuse too, for objects older than the rules."""
    for message in _contradictions(spec):
        return Refusal("spec_is_consistent", Reason.SPEC_INVALID, message)
    return None


def _contradictions(spec: ChatbotClusterSpec) -> list[str]:
    found: list[str] = []
    ingest, inference, retrieval = spec.ingest, spec.inference, spec.retrieval
    if ingest.chunk_overlap_characters >= ingest.chunk_size_characters:
        found.append("spec.ingest.chunkOverlapCharacters must be smaller than chunkSizeCharacters")
    if retrieval.min_passages > retrieval.max_passages:
        found.append("spec.retrieval.minPassages must not exceed maxPassages")
    if inference.drain_seconds <= inference.max_answer_seconds:
        found.append("spec.inference.drainSeconds must be longer than maxAnswerSeconds")
    managed = inference.managed
    if managed is not None and inference.external is not None:
        found.append("spec.inference must have at most one of managed and external")
    if managed is not None and managed.source == "Image" and managed.image is None:
        found.append("spec.inference.managed.image must be set where source is Image")
    if spec.database.managed is not None and spec.database.external is not None:
        found.append("spec.database must have at most one of managed and external")
    return [*found, *_of_stores(spec.documents)]


def _of_stores(documents: Documents) -> list[str]:
    found: list[str] = []
    for store in documents.stores:
        where = f"spec.documents.stores[{store.name}]"
        if (store.pvc is None) == (store.s3 is None):
            found.append(f"{where} must have exactly one of pvc and s3")
        elif store.s3 is not None and store.s3.endpoint is not None:
            plain = not store.s3.endpoint.startswith("https://")
            if plain and not store.s3.allow_insecure:
                found.append(f"{where}.s3.endpoint must be an https URL, or allowInsecure true")
    return found
