"""How pods reach what is outside of the cluster: credentials of registries, and proxies."""

from __future__ import annotations

from typing import Annotated, ClassVar, Final

from pydantic import Field

from chatbot_core.v1alpha1.fields import Edit, Object, Subdomain, Url, stated

#: A host, a domain with a leading dot, or an address.
_Place = Annotated[str, Field(pattern=r"^[-a-zA-Z0-9.:]+$", min_length=1, max_length=253)]


class PullSecret(Object):
    """A Secret of type kubernetes.io/dockerconfigjson; kubelet reads it, the operator does not."""

    name: Subdomain = stated(Edit.ROLLS_EVERY_TIER, "Name of a Secret in this namespace.")


def _url(field: str) -> tuple[str, str, str]:
    path = f"self.{field}"
    return (
        f"!has({path}) || isURL({path}) && {path}.matches('^https?://[^/?#@]+/?$')",
        "must be a URL like http://proxy.example.com:3128, without user, path or query",
        f".{field}",
    )


class Proxy(Object):
    """HTTP proxies for what leaves the cluster: models, buckets, external endpoints.

    Services and pods of the cluster are never asked through one, nor is the database.
    """

    RULES: ClassVar = (
        (
            "has(self.httpProxy) || has(self.httpsProxy)",
            "must have httpProxy, httpsProxy or both",
            "",
        ),
        _url("httpProxy"),
        _url("httpsProxy"),
    )
    http_proxy: Url | None = stated(
        Edit.ROLLS_OUTWARD, "Proxy for http URLs; it holds no password.", default=None
    )
    https_proxy: Url | None = stated(
        Edit.ROLLS_OUTWARD, "Proxy for https URLs; it holds no password.", default=None
    )
    no_proxy: tuple[_Place, ...] = stated(
        Edit.ROLLS_OUTWARD,
        "Hosts, domains like .example.com and addresses that are asked directly.",
        default_factory=tuple,
        max_length=64,
    )


#: What every proxy setting leaves out: the pod itself, and what resolves in the cluster alone.
NEVER_PROXIED: Final = ("localhost", "127.0.0.1", ".svc", ".svc.cluster.local")
