"""All that one object shall have, remembered by the values that it follows from.

Building and hashing the children of a hundred shards takes forty times as long as comparing them,
so a pass compares outlines, and only a child that differs is built whole. What is remembered is a
function of its key and bounded: forgetting it changes no result.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final

from pydantic import ValidationError

from chatbot_core import names
from chatbot_core.reasons import Reason
from chatbot_core.runtime_config import RuntimeConfig
from chatbot_core.v1alpha1 import ChatbotClusterSpec
from chatbot_operator import drift, safety
from chatbot_operator.desired import (
    api,
    budgets,
    config,
    context,
    database,
    documents,
    erase,
    inference,
    ingest,
    migration,
    secrets,
    shards,
)
from chatbot_operator.desired.context import Choice, Context, Desired, Rank
from chatbot_operator.model import ChildKey, Json, Observed, Refusal

_BUILDERS: Final = (database, documents, migration, shards, inference, ingest, api)
#: Targets that are kept: some kilobytes each, for as many objects as one operator may have.
_TARGETS: Final = 1024
#: Whole targets that are kept: megabytes each, for the objects that are being changed now.
_WHOLE: Final = 4
#: Verdicts that are kept, one a child.
_VERDICTS: Final = 65_536


@dataclass(frozen=True, slots=True)
class Origin:
    """All that an object's children follow from; `spec` is JSON, so that it can be a key."""

    namespace: str
    cluster: str
    uid: str
    spec: str
    choice: Choice
    pull_policy: str


@dataclass(frozen=True, slots=True)
class Outline:
    """One child as it shall be, as short as a comparison needs it; `object` builds the rest.

    `applied` and `template` are the hashes that its annotations carry (`template` "" = it has no
    pods), `component` and `version` its labels, `storage` the size that a claim asks for ("" = no
    claim); the others are those of its `Desired`.
    """

    origin: Origin = field(repr=False)
    key: ChildKey
    rank: Rank
    applied: str
    template: str
    component: str
    version: str
    storage: str
    replicas: int | None
    secrets: tuple[str, ...]
    once: bool

    @property
    def object(self) -> Json:
        """Return the whole object, with its annotation."""
        return _whole(self.origin).objects[self.key]

    @property
    def applied_unmarked(self) -> str:
        """Return what an operator that did not note the template's hash would have applied."""
        return context.unmarked_hash(self.object)

    def is_owned(self, managed: str | None) -> bool:
        """Return whether nobody else took a leaf of it, by the JSON of our own `fieldsV1`."""
        return _is_owned(self.origin, self.key, managed)


@dataclass(frozen=True, slots=True)
class Target:
    """What a pass works towards.

    `secrets` maps every Secret that some pod mounts to its keys; `generated` are those of ours,
    each with the outline of its metadata. `acknowledged` maps a role to the hash that its
    processes shall report, `self_test` names the self-test that shall pass. `erase` is the Job
    that ends the object, None where nothing lies outside of Kubernetes.
    """

    ctx: Context
    erase: Outline | None
    children: tuple[Outline, ...]
    generated: tuple[tuple[secrets.Generated, Outline], ...]
    secrets: Mapping[str, frozenset[str]]
    acknowledged: Mapping[str, str]
    self_test: str


@dataclass(frozen=True, slots=True)
class _Whole:
    children: tuple[Desired, ...]
    metadata: tuple[Desired, ...]
    erase: Desired | None
    document: RuntimeConfig
    objects: Mapping[ChildKey, Json]


def origin_of(observed: Observed, choice: Choice) -> Origin:
    """Return what the children of an observed object follow from."""
    owner = observed.owner
    return Origin(
        owner.namespace,
        owner.name,
        owner.uid,
        json.dumps(owner.spec),
        choice,
        observed.settings.image_pull_policy,
    )


@lru_cache(_TARGETS)
def target(origin: Origin) -> Target | Refusal:
    """Return what an object shall have, or why its spec cannot be followed."""
    ctx = _context(origin)
    if isinstance(ctx, Refusal):
        return ctx
    whole = _whole(origin)
    metadata = [_outline(origin, one) for one in whole.metadata]
    return Target(
        ctx=ctx,
        erase=None if whole.erase is None else _outline(origin, whole.erase),
        children=tuple(_outline(origin, one) for one in whole.children),
        generated=tuple(zip(secrets.generated(ctx), metadata, strict=True)),
        secrets=secrets.needed(ctx),
        acknowledged=config.acknowledgements(whole.document),
        self_test=whole.document.live.self_test.wanted,
    )


def _context(origin: Origin) -> Context | Refusal:
    spec = _spec(origin.spec)
    if isinstance(spec, Refusal):
        return spec
    boot = config.boot(origin.namespace, origin.cluster, spec)
    return Context(
        origin.namespace,
        origin.cluster,
        origin.uid,
        spec,
        origin.choice,
        boot,
        origin.pull_policy,
    )


def _spec(text: str) -> ChatbotClusterSpec | Refusal:
    try:
        spec = ChatbotClusterSpec.model_validate(json.loads(text))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        path = ".".join(["spec", *(str(part) for part in first["loc"])])
        return Refusal("spec_is_valid", Reason.SPEC_INVALID, f"{path}: {first['msg']}")
    return safety.spec_is_consistent(spec) or spec


def _outline(origin: Origin, one: Desired) -> Outline:
    labels, claims = one.object["metadata"]["labels"], one.key[0] == "PersistentVolumeClaim"
    return Outline(
        origin=origin,
        key=one.key,
        rank=one.rank,
        applied=context.applied_hash(one.object),
        template=one.object["metadata"].get("annotations", {}).get(names.ANNOTATION_TEMPLATE, ""),
        component=labels[names.LABEL_COMPONENT],
        version=labels.get(names.LABEL_VERSION, ""),
        storage=one.object["spec"]["resources"]["requests"]["storage"] if claims else "",
        replicas=one.replicas,
        secrets=one.secrets,
        once=one.once,
    )


@lru_cache(_WHOLE)
def _whole(origin: Origin) -> _Whole:
    ctx = _context(origin)
    assert isinstance(ctx, Context)
    tiers = [child for builder in _BUILDERS for child in builder.desired(ctx)]
    tiers += budgets.desired(ctx, tiers)
    templates = {"/".join(one.key): one.template for one in tiers if one.replicas is not None}
    document = config.document(ctx, config.wanted_self_test(ctx.spec, templates))
    first = (
        Desired(Rank.CONFIG, config.service_account(ctx)),
        Desired(Rank.CONFIG, config.config_map(ctx, document)),
    )
    children = tuple(_sealed(one) for one in (*first, *tiers))
    metadata = tuple(
        _sealed(Desired(Rank.CONFIG, secrets.secret_metadata(ctx, one)))
        for one in secrets.generated(ctx)
    )
    job = erase.desired(ctx)
    last = None if job is None else _sealed(job)
    every = (*children, *metadata, *([last] if last else []))
    return _Whole(children, metadata, last, document, {one.key: one.object for one in every})


def _sealed(one: Desired) -> Desired:
    marked = one.object if one.replicas is None else context.marked(one.object)
    return Desired(one.rank, context.sealed(marked), one.replicas, one.secrets, one.once)


@lru_cache(_VERDICTS)
def _is_owned(origin: Origin, key: ChildKey, managed: str | None) -> bool:
    return drift.owns_all(_whole(origin).objects[key], drift.fields(managed))
