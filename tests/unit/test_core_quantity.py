from __future__ import annotations

import pytest

from chatbot_core import quantity
from chatbot_core.errors import Invalid


@pytest.mark.parametrize(
    ("text", "size_bytes"),
    [("500Ki", 512000), ("10Gi", 10 * 2**30), ("1k", 1000), ("1.5Mi", 1572864), ("7", 7)],
)
def test_a_size_is_read_as_whole_bytes(text: str, size_bytes: int) -> None:
    assert quantity.to_bytes(text) == size_bytes


def test_a_fraction_of_a_byte_is_rounded_up() -> None:
    assert quantity.to_bytes("1500m") == 2


@pytest.mark.parametrize("text", ["", "4GB!", "-4Gi", "Gi", "1e3", "1 Gi"])
def test_what_is_no_quantity_is_named(text: str) -> None:
    with pytest.raises(Invalid, match="quantity"):
        quantity.parse(text)


@pytest.mark.parametrize("text", ["10Gi", "500Mi", "1Ki", "3Ti", "1023"])
def test_the_shortest_exact_form_comes_back(text: str) -> None:
    assert quantity.from_bytes(quantity.to_bytes(text)) == text
