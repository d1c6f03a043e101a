"""What every field of the object states: bounds, a sentence, and what an edit does."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any, ClassVar, Final

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from chatbot_core import quantity

INT32_MAX: Final = 2**31 - 1


class Edit(StrEnum):
    """What an edit of a field does to a running service; the last words of its description."""

    LIVE = "live"
    ROLLS_API = "rolls the API"
    ROLLS_SHARDS = "rolls the shards"
    ROLLS_INGEST = "rolls ingest"
    ROLLS_INFERENCE = "rolls inference"
    ROLLS_INFERENCE_AND_API = "rolls inference and API"
    ROLLS_OUTWARD = "rolls ingest, inference and API"
    ROLLS_INGEST_AND_API = "rolls ingest and API"
    ROLLS_DATABASE = "rolls the managed database"
    ROLLS_RUNTIME = "rolls every tier of the runtime"
    ROLLS_DATABASE_USERS = "rolls every tier that uses the database"
    ROLLS_EVERY_TIER = "rolls every tier"
    NEW_DATA_ONLY = "new data only"
    IMMUTABLE = "immutable"


class Object(BaseModel):
    """Base of every object in the schema: camelCase outside, frozen, unknown fields refused.

    `RULES` are CEL rules of `x-kubernetes-validations`, as (rule, message, field path or "").
    """

    model_config = ConfigDict(
        alias_generator=to_camel, populate_by_name=True, frozen=True, extra="forbid"
    )
    RULES: ClassVar[tuple[tuple[str, str, str], ...]] = ()


def stated(edit: Edit, sentence: str, **bounds: Any) -> Any:
    """Return the Field of a leaf: its sentence, what an edit does, and its bounds."""
    extra = {"x-edit": edit.value, **bounds.pop("extra", {})}
    return Field(description=f"{sentence} Edit: {edit.value}.", json_schema_extra=extra, **bounds)


def inherited(sentence: str, **bounds: Any) -> Any:
    """Return the Field of a leaf whose edit does what the field above it says (`below`)."""
    return Field(description=sentence, json_schema_extra=bounds.pop("extra", {}), **bounds)


def below(edit: Edit) -> Any:
    """Return the optional Field of an object whose leaves are `inherited`."""
    return Field(default=None, json_schema_extra={"x-edit-below": edit.value})


def rules(*pairs: tuple[str, str]) -> dict[str, Any]:
    """Return CEL rules of a field, as (rule, message)."""
    return {"x-kubernetes-validations": [{"rule": rule, "message": text} for rule, text in pairs]}


def size_rule(smallest: str, largest: str) -> dict[str, Any]:
    """Return the CEL rule that bounds a quantity."""
    rule = (
        f"quantity(self).compareTo(quantity('{smallest}')) >= 0 && "
        f"quantity(self).compareTo(quantity('{largest}')) <= 0"
    )
    return rules((rule, f"must be between {smallest} and {largest}"))


def immutable(next_step: str) -> dict[str, Any]:
    """Return the CEL transition rule of a field that never changes."""
    return rules(("self == oldSelf", f"must not change: {next_step}"))


Quantity = Annotated[str, Field(pattern=quantity.PATTERN, max_length=20)]
#: RFC 1123 subdomain, as for Secrets and storage classes.
Subdomain = Annotated[
    str, Field(pattern=r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$", min_length=1, max_length=253)
]
#: RFC 1123 label.
Label = Annotated[
    str, Field(pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", min_length=1, max_length=63)
]
SecretKey = Annotated[str, Field(pattern=r"^[-._a-zA-Z0-9]+$", min_length=1, max_length=253)]
Url = Annotated[str, Field(min_length=1, max_length=1024)]
Image = Annotated[
    str,
    Field(pattern=r"^[a-zA-Z0-9][-a-zA-Z0-9._/:]*(@sha256:[a-f0-9]{64})?$", max_length=255),
]
#: Ollama's model names: `[namespace/]name[:tag]`.
ModelName = Annotated[
    str,
    Field(
        pattern=r"^[a-zA-Z0-9][-a-zA-Z0-9._]*(/[a-zA-Z0-9][-a-zA-Z0-9._]*){0,3}(:[a-zA-Z0-9][-a-zA-Z0-9._]*)?$",
        min_length=1,
        max_length=128,
    ),
]
