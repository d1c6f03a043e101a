"""The parts of the spec that say how many replicas a tier runs."""

from __future__ import annotations

from typing import Any

from chatbot_core.v1alpha1.fields import Edit, Object, stated


def _replicas(default: int) -> Any:
    return stated(
        Edit.LIVE, "Number of replicas that the tier runs.", default=default, ge=1, le=100
    )


class Scaling(Object):
    """How many replicas a tier runs."""

    min_replicas: int = _replicas(1)


class ApiScaling(Object):
    """How many API replicas run."""

    min_replicas: int = _replicas(2)
