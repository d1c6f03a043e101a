"""The parts of the spec that keep bytes: claims, document stores, the database."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from chatbot_core.v1alpha1.fields import (
    Edit,
    Object,
    Quantity,
    SecretKey,
    Subdomain,
    Url,
    below,
    size_rule,
    stated,
)
from chatbot_core.v1alpha1.pods import TierPod

#: 40 characters of the object, "-store-" and these 16 are the 63 that a Service name may have.
StoreName = Annotated[str, Field(pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", max_length=16)]

_SAME_CLASS = (
    "has(self.storageClassName) == has(oldSelf.storageClassName) && "
    "(!has(self.storageClassName) || self.storageClassName == oldSelf.storageClassName)"
)


class SecretKeyRef(Object):
    """One key of a Secret in the object's namespace."""

    name: Subdomain = stated(
        Edit.ROLLS_DATABASE_USERS, "Name of a Secret in the namespace of this object."
    )
    key: SecretKey = stated(Edit.ROLLS_DATABASE_USERS, "Key in that Secret.")


class Claim(Object):
    """One volume claim of ours; it grows in place and never shrinks."""

    RULES: ClassVar = (
        (
            "quantity(self.size).compareTo(quantity(oldSelf.size)) >= 0",
            "must not become smaller than it was; volumes only grow",
            ".size",
        ),
        (_SAME_CLASS, "must not change; a claim keeps its storage class", ".storageClassName"),
    )
    size: Quantity = stated(
        Edit.LIVE,
        "Size of the claim; it grows in place where its class allows.",
        default="10Gi",
        extra=size_rule("100Mi", "64Ti"),
    )
    storage_class_name: Subdomain | None = stated(
        Edit.IMMUTABLE, "Storage class of the claim; unset takes the default class.", default=None
    )


class ManagedDatabase(Claim):
    """A PostgreSQL of ours over one claim."""

    pod: TierPod | None = below(Edit.ROLLS_DATABASE)


class ScratchStorage(Object):
    """Storage that may be lost: it is filled again from the database."""

    size: Quantity = stated(
        Edit.ROLLS_SHARDS,
        "Size limit of each shard pod's scratch volume.",
        default="10Gi",
        extra=size_rule("100Mi", "64Ti"),
    )
    storage_class_name: Subdomain | None = stated(
        Edit.ROLLS_SHARDS,
        "Storage class of a generic ephemeral claim; unset takes an emptyDir.",
        default=None,
    )


class CredentialsRef(Object):
    """A Secret with the keys accessKeyId and secretAccessKey."""

    name: Subdomain = stated(Edit.ROLLS_INGEST_AND_API, "Name of a Secret in this namespace.")


class S3(Object):
    """A bucket of any S3 service."""

    RULES: ClassVar = (
        (
            (
                "!has(self.endpoint) || isURL(self.endpoint) && "
                "url(self.endpoint).getScheme() in ['http', 'https']"
            ),
            "must be an http or https URL like https://s3.example.com",
            ".endpoint",
        ),
        (
            (
                "!has(self.endpoint) || !isURL(self.endpoint) || self.allowInsecure || "
                "url(self.endpoint).getScheme() == 'https'"
            ),
            "must be an https URL, or allowInsecure must be true",
            ".endpoint",
        ),
        (
            "!has(self.endpoint) || !self.endpoint.matches('^[a-z]+://(169[.]254[.]|[[]fe[89ab])')",
            "must not be a link-local address",
            ".endpoint",
        ),
        ("!self.prefix.contains('..')", "must not contain '..'", ".prefix"),
        (
            "self.bucket == oldSelf.bucket && self.prefix == oldSelf.prefix",
            "must not change; documents would be left behind in the old place",
            ".bucket",
        ),
    )
    bucket: str = stated(
        Edit.IMMUTABLE,
        "Name of an existing bucket.",
        pattern=r"^[a-z0-9][-a-z0-9.]*[a-z0-9]$",
        min_length=3,
        max_length=63,
    )
    prefix: str = stated(
        Edit.IMMUTABLE,
        "Prefix of every object key, like team-a/.",
        default="",
        pattern=r"^([-a-zA-Z0-9_.]+/)*$",
        max_length=256,
    )
    region: str = stated(
        Edit.ROLLS_INGEST_AND_API,
        "Region that requests are signed for.",
        default="us-east-1",
        pattern=r"^[a-z0-9-]+$",
        max_length=32,
    )
    endpoint: Url | None = stated(
        Edit.ROLLS_INGEST_AND_API, "URL of the service; unset takes the region's.", default=None
    )
    path_style: bool = stated(
        Edit.ROLLS_INGEST_AND_API, "Bucket in the path, not in the host name.", default=False
    )
    credentials_secret_ref: CredentialsRef
    server_side_encryption: Literal["AES256", "aws:kms"] | None = stated(
        Edit.ROLLS_INGEST_AND_API,
        "Value of the x-amz-server-side-encryption header of every new object.",
        default=None,
    )
    allow_insecure: bool = stated(
        Edit.LIVE, "Permit a plain http endpoint, for a network you trust.", default=False
    )


class Store(Object):
    """One place for documents' bytes: a claim of ours, or a bucket."""

    RULES: ClassVar = (
        ("has(self.pvc) != has(self.s3)", "must have exactly one of pvc and s3", ""),
        (
            "has(self.pvc) == has(oldSelf.pvc)",
            "must not change between pvc and s3; documents would be left behind",
            "",
        ),
    )
    name: StoreName = stated(Edit.IMMUTABLE, "Name of the store, part of its children's names.")
    pvc: Claim | None = None
    s3: S3 | None = None


class Documents(Object):
    """Where documents' bytes are kept."""

    RULES: ClassVar = (
        (
            (
                "self.stores.all(s, !has(s.s3) || self.stores.exists_one(o, has(o.s3) && "
                "o.s3.bucket == s.s3.bucket && (o.s3.prefix.startsWith(s.s3.prefix) || "
                "s.s3.prefix.startsWith(o.s3.prefix))))"
            ),
            "must not overlap in a bucket; give each store there a prefix of its own",
            ".stores",
        ),
    )
    stores: tuple[Store, ...] = stated(
        Edit.ROLLS_INGEST_AND_API,
        "The document stores. New documents are spread over all; each stays where it was put, and "
        "a store can leave once it holds none.",
        default=(Store(name="main", pvc=Claim()),),
        min_length=1,
        max_length=8,
        extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]},
    )


class ExternalDatabase(Object):
    """A PostgreSQL of yours, 14 or newer."""

    secret_ref: SecretKeyRef
    ca_secret_ref: SecretKeyRef | None = None


class Database(Object):
    """The truth about documents, chunks and people."""

    RULES: ClassVar = (
        (
            "!(has(self.managed) && has(self.external))",
            "must have at most one of managed and external",
            "",
        ),
        (
            "has(self.external) == has(oldSelf.external)",
            "must not change between managed and external; data would be left behind",
            "",
        ),
    )
    managed: ManagedDatabase | None = None
    external: ExternalDatabase | None = None

    @property
    def claim(self) -> Claim | None:
        """Return the claim of the managed database: the default one where nothing is said."""
        return None if self.external else self.managed or Claim()
