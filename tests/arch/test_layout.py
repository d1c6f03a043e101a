"""What keeps the house in order: no file too long, no package that shadows another."""

from __future__ import annotations

import ast
import functools
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PRODUCT = sorted(
    path for top in ("core", "operator", "runtime") for path in (ROOT / top).rglob("*.py")
)
WRITTEN = [
    *PRODUCT,
    *sorted((ROOT / "hack").rglob("*.py")),
    *sorted((ROOT / "tests").rglob("*.py")),
]


def _name(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", WRITTEN, ids=_name)
def test_a_file_stays_under_400_lines(path: Path) -> None:
    assert len(path.read_text().splitlines()) < 400


@pytest.mark.parametrize("path", PRODUCT, ids=_name)
def test_a_function_stays_within_40_lines_besides_its_docstring(path: Path) -> None:
    functions = (
        node
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    )
    assert {node.name: _lines(node) for node in functions if _lines(node) > 40} == {}


def _lines(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    docstring = ast.get_docstring(node, clean=False) or ""
    end = node.end_lineno or node.lineno
    return end - node.lineno + 1 - len(docstring.splitlines())


def test_the_folder_operator_is_no_package_and_does_not_shadow_the_standard_library() -> None:
    assert not (ROOT / "operator" / "__init__.py").exists()


@pytest.mark.parametrize(
    ("module", "only"),
    [
        ("kopf", {"operator/chatbot_operator/handlers.py"}),
        ("kubernetes", {"operator/chatbot_operator/kube.py"}),
        ("faiss", {"runtime/chatbot_runtime/adapters/faiss_index.py"}),
        ("boto3", {"runtime/chatbot_runtime/adapters/s3.py"}),
    ],
)
def test_an_outside_world_is_imported_in_one_file(module: str, only: set[str]) -> None:
    assert {_name(path) for path in PRODUCT if module in _imports(path)} <= only


def test_asyncpg_is_imported_below_its_adapter_only() -> None:
    importers = {path.parent.name for path in PRODUCT if "asyncpg" in _imports(path)}
    assert importers <= {"postgres"}


@functools.cache
def _imports(path: Path) -> set[str]:
    tree = ast.parse(path.read_text())
    return {
        name.split(".")[0]
        for node in ast.walk(tree)
        for name in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [node.module or ""]
            if isinstance(node, ast.ImportFrom)
            else []
        )
    }
