"""What every layer shares: the choice between the bounded and the full form of long tests."""

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--all", action="store_true", help="the full form of every long test")
