"""Whose a live object is, when a pass first meets its name. Pure."""

from __future__ import annotations

from chatbot_core import names
from chatbot_core.reasons import Reason
from chatbot_operator.kinds import Object, Ref
from chatbot_operator.model import Owner, Refusal


def is_ours(live: Object, owner: Owner) -> bool:
    """Return whether the object names this very ChatbotCluster: as an owner, or by annotation."""
    meta = live["metadata"]
    owners = {reference["uid"] for reference in meta.get("ownerReferences") or ()}
    cluster_uid = (meta.get("annotations") or {}).get(names.ANNOTATION_CLUSTER_UID)
    return owner.uid in owners or cluster_uid == owner.uid


def is_left_to(live: Object, owner: Owner) -> bool:
    """Return whether a former object of this name left it, and nobody else controls it now."""
    meta = live["metadata"]
    label = (meta.get("labels") or {}).get(names.LABEL_RETAINED_FROM)
    controlled = any(r.get("controller") for r in meta.get("ownerReferences") or ())
    ours = names.retained_from(owner.namespace, owner.name)
    return label == ours and not controlled and "deletionTimestamp" not in meta


def foreign(ref: Ref) -> Refusal:
    """Return the refusal that names an object of somebody else."""
    words = (
        f"{ref} exists and does not belong to this ChatbotCluster; it is left alone. "
        "Delete or rename it, or choose another name for the ChatbotCluster."
    )
    return Refusal("foreign_object", Reason.FOREIGN_OBJECT, words)
