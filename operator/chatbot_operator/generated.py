"""Fills a generated Secret from its recipe. Pure: the randomness is an argument."""

from __future__ import annotations

from collections.abc import Callable

from chatbot_operator.kinds import Object
from chatbot_operator.model import Recipe


def filled(secret: Object, recipe: Recipe, draw: Callable[[int], str]) -> Object:
    """Return the Secret with its content; `draw(n)` gives n random characters of [A-Za-z0-9]."""
    content = {key: draw(length) for key, length in recipe.random}
    content.update(recipe.fixed)
    made = {key: text.format_map(content) for key, text in recipe.templates}
    return {**secret, "stringData": {**content, **made}}
