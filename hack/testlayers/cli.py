"""The arguments of ``hack/test`` and the order in which everything runs."""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Sequence

from environment import ensure_venv
from localkube.errors import ClusterError
from testlayers import gates, prepare, runner
from testlayers.layers import GATES, NAMES, Layer, groups
from testlayers.tally import HEADER, Outcome, last_line

_DESCRIPTION = """Runs the gates (style, types, imports, generated files), then the layers of tests.

Without names everything runs, cheapest first:
  gates unit golden property arch apiserver runtime crash e2e
A skipped test, and a layer that cannot run here and is not named in --allow-missing, fail the run.
Exit codes: 0 all passed, 1 something failed, 2 wrong arguments."""


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    top = argparse.ArgumentParser(
        "hack/test", description=_DESCRIPTION, formatter_class=argparse.RawTextHelpFormatter
    )
    top.add_argument("layers", nargs="*", metavar="layer", help=" ".join(NAMES))
    top.add_argument(
        "--allow-missing",
        action="append",
        nargs="+",
        default=[],
        choices=NAMES,
        metavar="LAYER",
        help="layers that may be unable to run here",
    )
    top.add_argument("--all", action="store_true", help="also the long form of every test")
    return top


def say(text: str) -> None:
    """Print at once: whoever waits without a terminal sees it too."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def main(arguments: Sequence[str]) -> int:
    """Run what was asked for; 0 when all of it passed."""
    top = parser()
    options = top.parse_args(arguments)
    if unknown := [name for name in options.layers if name not in NAMES]:
        top.error(f"layer {unknown[0]!r} does not exist; there are: {' '.join(NAMES)}")
    chosen = frozenset(options.layers or NAMES)
    allowed = frozenset(name for names in options.allow_missing for name in names)
    # A shell starts its background jobs deaf to SIGINT, and so would be what the tests interrupt.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        ensure_venv()
    except ClusterError as error:
        sys.stderr.write(f"hack/test: {error}\n")
        return 1
    try:
        outcomes = _run(chosen, allowed, ("--all",) if options.all else ())
    except KeyboardInterrupt:
        sys.stderr.write("hack/test: interrupted\n")
        return 130
    return _conclude(outcomes)


def _conclude(outcomes: list[Outcome]) -> int:
    say(f"\n{HEADER}")
    for one in outcomes:
        say(one.line())
    say(last_line(outcomes))
    return 0 if outcomes and all(one.green for one in outcomes) else 1


def _run(chosen: frozenset[str], allowed: frozenset[str], extra: tuple[str, ...]) -> list[Outcome]:
    outcomes: list[Outcome] = []

    def record(fresh: Sequence[Outcome]) -> None:
        outcomes.extend(fresh)
        for one in fresh:
            say(one.line())

    say(HEADER)
    if GATES in chosen:
        record([gates.run(say)])
    for group in groups(chosen):
        record(_run_group(group, allowed, extra))
    return outcomes


def _run_group(
    group: tuple[Layer, ...], allowed: frozenset[str], extra: tuple[str, ...]
) -> list[Outcome]:
    missing = {
        layer.name: Outcome(
            layer.name, not_run=f"tests/{layer.name} holds no test", allowed=layer.name in allowed
        )
        for layer in group
        if not runner.has_tests(layer)
    }
    present = tuple(layer for layer in group if layer.name not in missing)
    ran: dict[str, Outcome] = {}
    if present:
        ran = {one.layer: one for one in _prepared(present, allowed, extra)}
    return [{**missing, **ran}[layer.name] for layer in group]


def _prepared(
    layers: tuple[Layer, ...], allowed: frozenset[str], extra: tuple[str, ...]
) -> list[Outcome]:
    try:
        for layer in layers:
            if reason := prepare.prepare(layer, say):
                return [Outcome(layer.name, not_run=reason, allowed=layer.name in allowed)]
        return runner.run(layers, say, extra)
    finally:
        for layer in layers:
            prepare.clean_up(layer)
