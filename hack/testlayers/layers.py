"""The layers of tests: their order, budgets, and what each needs before it can run. Pure."""

from __future__ import annotations

from dataclasses import dataclass

#: A loaded machine may take this long before a short layer counts as hung.
LEAST_KILL_S = 180.0


@dataclass(frozen=True, slots=True)
class Layer:
    """One folder below `tests/`.

    `budget_s` is what it may take on two cores with everything built; at twice that it is ended.
    `hang_s` is when a single test's stacks are printed.
    """

    name: str
    budget_s: float
    hang_s: float
    random_order: bool = True
    programs: tuple[str, ...] = ()
    needs_cluster: bool = False

    @property
    def kill_s(self) -> float:
        """Return after how many seconds the layer is ended."""
        return max(2 * self.budget_s, LEAST_KILL_S)


FAST = (
    Layer("unit", 30, 30),
    Layer("golden", 30, 30),
    Layer("property", 30, 30),
    Layer("arch", 30, 30),
)
_CONTROL_PLANE = ("etcd", "kube-apiserver")
SLOW = (
    Layer("apiserver", 300, 120, programs=_CONTROL_PLANE),
    Layer("runtime", 480, 180),
    # Its campaigns end with a count of all that the ones before have tested.
    Layer("crash", 600, 400, random_order=False, programs=_CONTROL_PLANE),
    # Its tests share one deployed service and go from harmless to destructive.
    Layer("e2e", 720, 400, random_order=False, needs_cluster=True),
)
GATES = "gates"
LAYERS = {layer.name: layer for layer in (*FAST, *SLOW)}
NAMES = (GATES, *LAYERS)


def groups(chosen: frozenset[str]) -> list[tuple[Layer, ...]]:
    """Return the chosen layers as the groups that share one process, cheapest first."""
    fast = tuple(layer for layer in FAST if layer.name in chosen)
    slow: list[tuple[Layer, ...]] = [(layer,) for layer in SLOW if layer.name in chosen]
    return [fast, *slow] if fast else slow


def layer_of(test_id: str) -> str:
    """Return the layer that a pytest id such as `tests/unit/test_x.py::test_y` belongs to."""
    parts = test_id.split("/")
    return parts[1] if len(parts) > 1 else parts[0]
