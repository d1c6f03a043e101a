"""What every layer shares: the choice between the bounded and the full form of long tests."""

import pytest
from hypothesis import settings

# A loaded machine is slow, not wrong: no example fails by its time.
settings.register_profile("bounded", deadline=None)
settings.register_profile("full", deadline=None, max_examples=1000)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--all", action="store_true", help="the full form of every long test")


def pytest_configure(config: pytest.Config) -> None:
    settings.load_profile("full" if config.getoption("--all") else "bounded")
