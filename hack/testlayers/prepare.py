"""Brings in what a layer needs and its budget does not cover: builds, images, the cluster."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from collections.abc import Callable, Sequence

from environment import ROOT
from testlayers.layers import Layer

#: One instance a checkout: two checkouts that test at once never end each other's cluster.
CLUSTER_NAME = f"e2e-{hashlib.sha256(str(ROOT).encode()).hexdigest()[:6]}"
_CLUSTER = ("hack/cluster", "--name", CLUSTER_NAME)


def prepare(layer: Layer, say: Callable[[str], None]) -> str:
    """Return why the layer cannot run here, or '' once it can."""
    steps: list[tuple[str, ...]] = []
    if layer.programs:
        steps.append(("hack/cluster", "build", *layer.programs))
    if layer.needs_cluster:
        steps += [(*_CLUSTER, "up"), ("hack/release", "images")]
    for step in steps:
        say(f"preparing {layer.name}: {' '.join(step)}")
        if reason := _run(step):
            return reason
    return ""


def clean_up(layer: Layer) -> None:
    """Take down what `prepare` started; what is gone already is fine."""
    if layer.needs_cluster:
        _run((*_CLUSTER, "down"))


def _run(step: Sequence[str]) -> str:
    """Run a script, its progress passed through; return the last line of what it said if it failed.

    The scripts print a line at least every ten seconds themselves.
    """
    said = ""
    with subprocess.Popen(
        [sys.executable, *step],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
    ) as process:
        assert process.stderr is not None
        for line in process.stderr:
            sys.stderr.write(f"  {line}")
            sys.stderr.flush()
            said = line.strip() or said
        code = process.wait()
    return "" if code == 0 else said or f"{' '.join(step)} exited with {code}"
