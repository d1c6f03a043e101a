"""Secrets: which are generated and how, which a role needs, and as which files it finds them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from chatbot_core import names
from chatbot_core.names import Component, Role
from chatbot_core.v1alpha1.inference import Endpoint
from chatbot_core.v1alpha1.storage import Documents
from chatbot_operator.desired import context
from chatbot_operator.desired.context import Context
from chatbot_operator.model import Json, Recipe

_TOKEN_LENGTH: Final = 48
_PASSWORD_LENGTH: Final = 32
_ADMIN_PASSWORD_LENGTH: Final = 20
_ACCESS_KEY_LENGTH: Final = 20


#: For start scripts of programs that read Secrets once: ends the program that follows by `exec`
#: when the mounted files have changed, so that its container starts again with the new ones.
RESTART_WHEN_CHANGED: Final = f"""\
seen() {{ cat {names.SECRETS_DIR}/* | sha256sum; }}
before=$(seen)
(while sleep 10; do [ "$(seen)" = "$before" ] || kill -INT $$; done) &
"""


@dataclass(frozen=True, slots=True)
class Mount:
    """Keys of one Secret as files below `names.SECRETS_DIR`: (key, path) pairs."""

    secret: str
    items: tuple[tuple[str, str], ...]

    def source(self) -> Json:
        """Return the source of a projected volume."""
        items = [{"key": key, "path": path} for key, path in self.items]
        return {"secret": {"name": self.secret, "items": items}}


@dataclass(frozen=True, slots=True)
class Generated:
    """A Secret that we make; `opens_data` ones outlive the object as their claims do."""

    name: str
    component: str
    recipe: Recipe
    opens_data: bool

    @property
    def keys(self) -> frozenset[str]:
        """Return every key it holds."""
        recipe = self.recipe
        return frozenset(key for key, _ in (*recipe.random, *recipe.fixed, *recipe.templates))


def generated(ctx: Context) -> tuple[Generated, ...]:
    """Return every Secret of ours, in order of creation."""
    found = [
        Generated(
            names.internal_secret(ctx.cluster),
            Component.CONFIG,
            Recipe(random=((names.KEY_TOKEN, _TOKEN_LENGTH),)),
            opens_data=False,
        )
    ]
    if ctx.spec.database.claim is not None:
        found.append(_database(ctx))
    found += [_store(ctx, one.name) for one in ctx.spec.documents.stores if one.pvc is not None]
    if ctx.spec.access.admin_secret_ref is None:
        found.append(_admin(ctx))
    return tuple(found)


def _database(ctx: Context) -> Generated:
    host = ctx.host(names.child(ctx.cluster, Component.DATABASE))
    address = f"{host}:{names.PORT_DATABASE}/{names.DATABASE_NAME}"
    return Generated(
        names.database_secret(ctx.cluster),
        Component.DATABASE,
        Recipe(
            random=(
                (names.KEY_PASSWORD, _PASSWORD_LENGTH),
                (names.KEY_SUPERUSER_PASSWORD, _PASSWORD_LENGTH),
            ),
            fixed=((names.KEY_USERNAME, names.DATABASE_ROLE),),
            templates=((names.KEY_DSN, f"postgresql://{{username}}:{{password}}@{address}"),),
        ),
        opens_data=True,
    )


def _store(ctx: Context, store: str) -> Generated:
    return Generated(
        names.store_secret(ctx.cluster, store),
        f"{Component.STORE.value}-{store}",
        Recipe(
            random=(
                (names.KEY_ACCESS_KEY_ID, _ACCESS_KEY_LENGTH),
                (names.KEY_SECRET_ACCESS_KEY, _TOKEN_LENGTH),
            )
        ),
        opens_data=True,
    )


def _admin(ctx: Context) -> Generated:
    # The account lives in the database: a Secret that went alone would lock people out.
    return Generated(
        names.admin_secret(ctx.cluster),
        Component.API,
        Recipe(
            random=((names.KEY_PASSWORD, _ADMIN_PASSWORD_LENGTH),),
            fixed=((names.KEY_USERNAME, "admin"),),
        ),
        opens_data=True,
    )


def new_secret(ctx: Context, one: Generated) -> Json:
    """Return the object to create, without data.

    What opens data is created without an owner reference, which a later apply could not take
    back: another manager would own it.
    """
    made = secret_metadata(ctx, one)
    if one.opens_data:
        made["metadata"].pop("ownerReferences", None)
    return {**made, "type": "Opaque"}


def secret_metadata(ctx: Context, one: Generated) -> Json:
    """Return the apply of a Secret of ours: its metadata only, never its data."""
    metadata = context.lasting if one.opens_data else context.owned
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": metadata(ctx, one.name, one.component),
    }


def _database_mounts(ctx: Context) -> list[Mount]:
    external = ctx.spec.database.external
    if external is None:
        secret = names.database_secret(ctx.cluster)
        return [Mount(secret, ((names.KEY_DSN, names.FILE_DSN),))]
    mounts = [Mount(external.secret_ref.name, ((external.secret_ref.key, names.FILE_DSN),))]
    if external.ca_secret_ref is not None:
        ca = external.ca_secret_ref
        mounts.append(Mount(ca.name, ((ca.key, names.FILE_DATABASE_CA),)))
    return mounts


def store_folder(documents: Documents, name: str) -> str:
    """Return the folder of a store's credentials below `names.SECRETS_DIR`."""
    only = len(documents.stores) == 1
    return names.DOCUMENTS_FOLDER if only else f"{names.DOCUMENTS_FOLDER}/{name}"


def _documents_mounts(ctx: Context, wanted: Iterable[str]) -> Iterator[Mount]:
    """Yield the credentials of the stores of these names."""
    documents = ctx.spec.documents
    for store in documents.stores:
        if store.name not in wanted:
            continue
        secret = names.store_secret(ctx.cluster, store.name)
        if store.s3 is not None:
            secret = store.s3.credentials_secret_ref.name
        folder = store_folder(documents, store.name)
        keys = (names.KEY_ACCESS_KEY_ID, names.KEY_SECRET_ACCESS_KEY)
        yield Mount(secret, tuple((key, f"{folder}/{key}") for key in keys))


def _outside(ctx: Context) -> tuple[Mount, ...]:
    """Return what opens the places that the end of the object erases."""
    found = _database_mounts(ctx) if ctx.boot.erase.database else []
    found += _documents_mounts(ctx, {one.name for one in ctx.boot.erase.stores})
    return tuple(found)


def admin_name(ctx: Context) -> str:
    """Return the name of the Secret of the first admin: the stated or the generated one."""
    stated = ctx.spec.access.admin_secret_ref
    return stated.name if stated else names.admin_secret(ctx.cluster)


def mounts(ctx: Context, role: Role) -> tuple[Mount, ...]:
    """Return the Secrets that a role finds as files; each sees no more than it needs."""
    if role is Role.ERASE:
        return _outside(ctx)
    internal = Mount(
        names.internal_secret(ctx.cluster), ((names.KEY_TOKEN, names.FILE_INTERNAL_TOKEN),)
    )
    found = [*_database_mounts(ctx), internal]
    if role in (Role.API, Role.INGEST):
        found += _documents_mounts(ctx, {one.name for one in ctx.spec.documents.stores})
    if role is Role.API:
        admin = (
            (names.KEY_USERNAME, names.FILE_ADMIN_USERNAME),
            (names.KEY_PASSWORD, names.FILE_ADMIN_PASSWORD),
        )
        found.append(Mount(admin_name(ctx), admin))
    return tuple(found)


def endpoint_mounts(endpoint: Endpoint) -> tuple[Mount, ...]:
    """Return the Secrets of one external endpoint; only its own proxy sees them."""
    token, ca = endpoint.token_secret_ref, endpoint.ca_secret_ref
    found = [Mount(token.name, ((token.key, names.FILE_ENDPOINT_TOKEN),))] if token else []
    return (*found, *([Mount(ca.name, ((ca.key, names.FILE_ENDPOINT_CA),))] if ca else []))


def needed(ctx: Context) -> dict[str, frozenset[str]]:
    """Return every Secret that some pod mounts, ours and the user's, with its keys."""
    mounted = list(mounts(ctx, Role.API))
    for endpoint in ctx.spec.inference.endpoints:
        mounted += endpoint_mounts(endpoint)
    return keys_of(tuple(mounted), {one.name: one.keys for one in generated(ctx)})


def keys_of(
    mounted: tuple[Mount, ...], keys: dict[str, frozenset[str]]
) -> dict[str, frozenset[str]]:
    """Return the keys of every mounted Secret, together with those that are known already."""
    for mount in mounted:
        wanted = frozenset(key for key, _ in mount.items)
        keys[mount.secret] = keys.get(mount.secret, frozenset()) | wanted
    return keys
