"""Kubernetes quantities: `500Mi`, `2`, `250m` to exact numbers and back.

Format: apimachinery `pkg/api/resource/quantity.go` (decimal and binary suffixes, no exponents
here: nobody writes them in a ChatbotCluster).
"""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Final

from chatbot_core.errors import Invalid

PATTERN: Final = r"^[0-9]+(\.[0-9]+)?(m|k|M|G|T|P|Ki|Mi|Gi|Ti|Pi)?$"
_FACTOR: Final[dict[str, Decimal]] = {
    "m": Decimal("0.001"),
    "": Decimal(1),
    **{unit: Decimal(1000) ** (i + 1) for i, unit in enumerate("kMGTP")},
    **{unit: Decimal(1024) ** (i + 1) for i, unit in enumerate(["Ki", "Mi", "Gi", "Ti", "Pi"])},
}


def parse(text: str) -> Decimal:
    """Return the number that a quantity stands for (bytes, cores or a count).

    Raises Invalid where the text is no quantity.
    """
    match = re.match(PATTERN, text)
    if match is None:
        raise Invalid("quantity", text, "a number with an optional suffix like 500Mi, 10Gi or 250m")
    suffix = match.group(2) or ""
    return Decimal(text.removesuffix(suffix)) * _FACTOR[suffix]


def to_bytes(text: str) -> int:
    """Return a size in whole bytes, rounded up. Raises Invalid."""
    exact = parse(text)
    return int(exact) + (exact != int(exact))


def from_bytes(size_bytes: int) -> str:
    """Return the shortest exact binary quantity of a size in bytes (`10Gi`, not `10737418240`)."""
    for suffix in ("Pi", "Ti", "Gi", "Mi", "Ki"):
        factor = int(_FACTOR[suffix])
        if size_bytes >= factor and size_bytes % factor == 0:
            return f"{size_bytes // factor}{suffix}"
    return str(size_bytes)
