"""Measure branch coverage and mutation score of the pure code; started by `mutation`.

The tracked files are copied into a scratch folder in the layout that mutmut expects; mutmut
changes one expression at a time and runs the tests that reach it. The last line of stdout is one
JSON object. A mutant that survives is shown by its name and its difference on stderr.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).resolve().parents[2]
PACKAGES: Final = {
    "core/chatbot_core": "src/chatbot_core",
    "operator/chatbot_operator": "src/chatbot_operator",
    "runtime/chatbot_runtime": "src/chatbot_runtime",
}
#: What decides, by the name under which it is reported.
PURE: Final = {
    "core": ("src/chatbot_core/*",),
    "plan": (
        "src/chatbot_operator/plan.py",
        "src/chatbot_operator/drift.py",
        "src/chatbot_operator/progress.py",
        "src/chatbot_operator/removal.py",
        "src/chatbot_operator/rollout.py",
        "src/chatbot_operator/upgrade.py",
    ),
    "safety": ("src/chatbot_operator/safety.py",),
    "status": ("src/chatbot_operator/status.py",),
}
QUICK: Final = ("safety",)
TESTS: Final = ("tests/golden", "tests/unit", "tests/property")
GOALS: Final = {"score": 0.9, "branch_coverage": 1.0}
#: What a mutant can end as, in the words of mutmut's results.
_FOUND: Final = frozenset({"killed", "timeout", "suspicious", "segfault"})
_PYTEST: Final = ("-p", "no:randomly", "-k", "operator or golden or core")


def stage(folder: Path, parts: tuple[str, ...]) -> None:
    """Copy the tracked files below `folder`, packages under `src/`, and configure mutmut."""
    listed = subprocess.run(
        ["git", "-C", str(ROOT), "ls-files", "-z"], capture_output=True, text=True, check=True
    )
    for name in filter(None, listed.stdout.split("\0")):
        target = folder / _staged(name)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, target)
    project = folder / "pyproject.toml"
    layout = '"core", "operator", "runtime", "hack", "tests"'
    text = project.read_text().replace(layout, '"src", "hack", "tests"')
    copied = sorted(path.name for path in folder.iterdir() if path.name not in ("src", ".git"))
    mutated = [pattern for part in parts for pattern in PURE[part]]
    project.write_text(f"{text}\n[tool.mutmut]\n{_table(mutated, copied)}")


def _staged(name: str) -> str:
    for package, place in PACKAGES.items():
        if name.startswith(f"{package}/"):
            return place + name.removeprefix(package)
    return name


def _table(mutated: list[str], copied: list[str]) -> str:
    values: dict[str, list[str]] = {
        "source_paths": ["src"],
        "only_mutate": mutated,
        "also_copy": copied,
        "pytest_add_cli_args_test_selection": list(TESTS),
        "pytest_add_cli_args": list(_PYTEST),
    }
    return "".join(f"{key} = {json.dumps(value)}\n" for key, value in values.items())


def mutants(folder: Path) -> dict[str, str]:
    """Run mutmut in a staged folder and return how each mutant ended, by its name."""
    tool = [sys.executable, "-m", "mutmut"]
    subprocess.run([*tool, "run"], cwd=folder, stdout=sys.stderr, check=True)
    listed = subprocess.run(
        [*tool, "results", "--all", "true"], cwd=folder, capture_output=True, text=True, check=True
    )
    ends: dict[str, str] = {}
    for line in listed.stdout.splitlines():
        name, _, end = line.strip().partition(": ")
        if end:
            ends[name] = end
    for name, end in ends.items():
        if end not in _FOUND:
            shown = subprocess.run(
                [*tool, "show", name], cwd=folder, capture_output=True, text=True, check=True
            )
            sys.stderr.write(f"{end}: {name}\n{shown.stdout}\n")
    return ends


def branch_coverage(folder: Path, parts: tuple[str, ...]) -> float:
    """Return the share of lines and branches of the pure code that the tests reach."""
    environment = os.environ | {"COVERAGE_FILE": str(folder / ".coverage")}
    tool = [sys.executable, "-m", "coverage"]
    run = [*tool, "run", "--branch", "--source=src", "-m", "pytest", "-q", *_PYTEST, *TESTS]
    subprocess.run(run, cwd=folder, env=environment, stdout=sys.stderr, check=True)
    included = ",".join(pattern for part in parts for pattern in PURE[part])
    report = folder / "coverage.json"
    command = [*tool, "json", "-q", f"--include={included}", "-o", str(report)]
    subprocess.run(command, cwd=folder, env=environment, check=True)
    found = json.loads(report.read_text())
    for name, one in sorted(found["files"].items()):
        if one["missing_lines"] or one["missing_branches"]:
            missing = f"{one['missing_lines']} {one['missing_branches']}"
            sys.stderr.write(f"not reached: {name} {missing}\n")
    return round(found["totals"]["percent_covered"] / 100, 4)


def measure(quick: bool) -> dict[str, Any]:
    """Return the result object."""
    parts = QUICK if quick else tuple(PURE)
    with tempfile.TemporaryDirectory(prefix="chatbot-mutation-") as scratch:
        folder = Path(scratch)
        stage(folder, parts)
        covered = branch_coverage(folder, parts)
        ends = Counter(mutants(folder).values())
    found = sum(count for end, count in ends.items() if end in _FOUND)
    figures = {
        "branch_coverage": covered,
        "mutants": ends.total(),
        "found": found,
        "score": round(found / ends.total(), 4),
    }
    return {
        "bench": "mutation",
        "figures": figures,
        "goals": {key: f">= {least}" for key, least in GOALS.items()},
        "met": {key: figures[key] >= least for key, least in GOALS.items()},
        "conditions": {
            "cores": os.cpu_count(),
            "python": platform.python_version(),
            "parts": list(parts),
            "ends": dict(ends),
        },
    }


def main() -> int:
    """Measure and print the result."""
    one = argparse.ArgumentParser(prog="hack/bench/mutation", description=__doc__)
    one.add_argument("--quick", action="store_true", help=f"{' '.join(QUICK)} alone")
    one.add_argument("--check", action="store_true", help="exit 1 when a goal is missed")
    arguments = one.parse_args()
    result = measure(arguments.quick)
    sys.stdout.write(json.dumps(result) + "\n")
    return int(arguments.check and not all(result["met"].values()))


if __name__ == "__main__":
    sys.exit(main())
