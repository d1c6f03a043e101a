"""Which release of the runtime an object runs now: PURE, with the predicates that guard a step.

A step that is refused leaves the kept choice as it is, whole: version and image belong together,
and everything else that the spec says goes on.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from typing import Final

from pydantic import BaseModel, ConfigDict, ValidationError

from chatbot_core import names
from chatbot_core.errors import Invalid
from chatbot_core.reasons import Reason
from chatbot_core.v1alpha1.release import (
    Release,
    RuntimeImage,
    Version,
    image_of,
    repository_of,
)
from chatbot_operator.desired.context import Choice
from chatbot_operator.model import Observed, OperatorSettings, Refusal

#: A RuntimeStatus this old speaks of a database that may have been migrated meanwhile.
STATUS_MAX_AGE_S: Final = 60.0
_WORKLOADS: Final = frozenset({"Deployment", "StatefulSet"})


class _Stated(BaseModel):
    """What the spec says about the release; the rest is validated with the whole."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    version: Version | None = None
    image: RuntimeImage | None = None


def choice(
    observed: Observed, copies: Iterable[str], now_s: float
) -> tuple[Choice, Refusal | None]:
    """Return version and images to work with, and why they are not those that the spec states.

    `copies` are the kept ones, best first. An object without a copy is new: nothing holds it.
    """
    stated, kept = _stated(observed), kept_choice(copies)
    base = kept or first_choice(observed.settings)
    wanted = stated.version or base.version
    if kept is not None and wanted != kept.version:
        refusal = one_minor_version_at_a_time(
            wanted, _running(kept, observed)
        ) or data_version_not_newer_than_image(wanted, kept, observed, now_s)
        if refusal is not None:
            return kept, refusal
    runtime = base.runtime if wanted == base.version else _runtime(observed.settings, wanted)
    image = image_of(stated.image, runtime, wanted)
    changes = {"version": wanted, "runtime": runtime, "image": "" if image == runtime else image}
    return base.model_copy(update=changes), None


def kept_choice(copies: Iterable[str]) -> Choice | None:
    """Return the first kept choice that can be read, None for a new object.

    A copy that no choice can be read from counts as none: the write that follows heals it.
    """
    for copy in copies:
        with contextlib.suppress(ValidationError):
            return Choice.model_validate_json(copy)
    return None


def first_choice(settings: OperatorSettings) -> Choice:
    """Return what a new object gets where it states nothing: the operator's own."""
    return Choice(
        version=settings.runtime_version,
        runtime=settings.runtime_image,
        database=settings.database_image,
        store=settings.store_image,
        ollama=settings.ollama_image,
    )


def one_minor_version_at_a_time(wanted: str, running: Iterable[str]) -> Refusal | None:
    """Refuse a step over a minor release: two neighbours are what is made to work together."""
    for version in sorted(set(running)):
        if not Release.of(wanted).is_next_to(Release.of(version)):
            return Refusal(
                "one_minor_version_at_a_time",
                Reason.VERSION_STEP_TOO_LARGE,
                f"spec.version {wanted} skips a minor release, {version} runs: "
                "state the releases between them one after the other",
            )
    return None


def data_version_not_newer_than_image(
    wanted: str, kept: Choice, observed: Observed, now_s: float
) -> Refusal | None:
    """Refuse a former release that cannot work with what a newer one has stored.

    The runtime tells the oldest release that works with the stored data. Before any migration
    has completed there are no data; where nobody tells, nothing goes back.
    """
    if Release.of(wanted) >= Release.of(kept.version):
        return None
    jobs = [child for child in observed.children.values() if child.kind == "Job"]
    if not any(job.succeeded for job in jobs):
        return None
    told = observed.runtime.value
    fresh = observed.runtime.fresh(now_s, STATUS_MAX_AGE_S)
    if told is None or not fresh or not told.oldest_version:
        return Refusal(
            "data_version_not_newer_than_image",
            Reason.STATUS_UNKNOWN,
            f"spec.version {wanted} is older than {kept.version}, and no API pod tells from which "
            "release on the stored data can be read",
        )
    if Release.of(wanted) >= Release.of(told.oldest_version):
        return None
    return Refusal(
        "data_version_not_newer_than_image",
        Reason.DATA_NEWER_THAN_VERSION,
        f"spec.version {wanted} cannot work with the stored data, which {told.oldest_version} or "
        "newer can: state that, or restore a backup of that time into a new object",
    )


def _stated(observed: Observed) -> _Stated:
    try:
        return _Stated.model_validate(observed.owner.spec)
    except ValidationError:
        # The whole spec is judged next and refused with the path of the fault.
        return _Stated()


def _running(kept: Choice, observed: Observed) -> Iterator[str]:
    yield kept.version
    for child in observed.children.values():
        label = child.labels.get(names.LABEL_VERSION, "")
        # A label that somebody else wrote tells nothing, and is healed.
        with contextlib.suppress(Invalid):
            Release.of(label)
            if child.kind in _WORKLOADS:
                yield label


def _runtime(settings: OperatorSettings, version: str) -> str:
    """Return the image of a release: the operator's own, or the same repository with its tag."""
    if version == settings.runtime_version:
        return settings.runtime_image
    return f"{repository_of(settings.runtime_image)}:{version}"
