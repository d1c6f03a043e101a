"""One real control plane for all trials, with a stub kubelet in place of a node."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import aiohttp
import pytest
from crash.harness.campaign import Choose, Trial
from crash.harness.faults import Answer, Kill, Stream
from crash.harness.stage import Ground
from crash.harness.workflows import WORKFLOWS
from fakes.apiserver import Admin, administrator, new_namespace

from localkube import processes, stubkubelet
from localkube.operated import control_plane, write_operator_kubeconfig
from localkube.stubkubelet import StubKubelet
from localkube.testserver import LoopbackServer

#: Workflows whose watches and answers are broken without --all.
USUAL = ("create", "live", "image", "delete")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "faulted" in metafunc.fixturenames:
        whole = metafunc.config.getoption("--all") or metafunc.config.getoption("--trial")
        metafunc.parametrize("faulted", WORKFLOWS if whole else USUAL)


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LoopbackServer]:
    with control_plane(tmp_path_factory.mktemp("crash") / "state") as running:
        yield running


@pytest.fixture(scope="session")
def operator_kubeconfig(server: LoopbackServer) -> Path:
    return write_operator_kubeconfig(server)


@pytest.fixture
def namespace(server: LoopbackServer) -> str:
    return new_namespace(server)


@pytest.fixture
async def admin(server: LoopbackServer) -> AsyncIterator[Admin]:
    async with administrator(server) as hands:
        yield hands


@pytest.fixture(scope="session")
def node(server: LoopbackServer) -> Iterator[None]:
    """A stub kubelet as a process of its own: the trials' loop has enough to do."""
    log = server.plane.state / "log" / "stub-kubelet.log"
    process = stubkubelet.start(server.url, server.certificates, log)
    yield
    processes.end([process], grace_s=1)


@pytest.fixture
async def ground(
    server: LoopbackServer, operator_kubeconfig: Path, admin: Admin, node: None
) -> AsyncIterator[Ground]:
    """What trials stand on."""
    trust = ssl.create_default_context(cafile=server.certificates / "ca.crt")
    async with aiohttp.ClientSession(
        server.url,
        connector=aiohttp.TCPConnector(ssl=trust, limit=0),
        timeout=aiohttp.ClientTimeout(total=None),
        read_bufsize=1 << 20,
    ) as http:
        yield Ground(server, operator_kubeconfig, admin, http)
    # TLS connections end a moment later: aiohttp's documentation, "Graceful Shutdown".
    await asyncio.sleep(0.1)


@pytest.fixture
def say(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Say what was tested, also when it passed: it stands below the run's summary."""
    properties = request.node.user_properties
    return lambda line: properties.append(("said", line))


@pytest.fixture
def choose(request: pytest.FixtureRequest) -> Choose:
    """Which trials run; `--trial` names one of them, as a failure prints it."""
    options = request.config
    alone = options.getoption("--trial")
    return Choose(
        options.getoption("--seed"),
        options.getoption("--all"),
        None if alone is None else Trial.parse(alone),
    )


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--seed", type=int, default=1, help="draws the trials of the bounded form")
    parser.addoption("--trial", help="run one trial alone, as a failure names it")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Keep for `--trial` the one test that it belongs to."""
    named = config.getoption("--trial", None)
    if named is None:
        return
    trial = Trial.parse(named)
    file = {Kill: "test_2", Stream: "test_3", Answer: "test_4"}[type(trial.fault)]
    items[:] = [one for one in items if file in one.nodeid and f"[{trial.workflow}]" in one.nodeid][
        :1
    ]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for outcome in ("passed", "failed"):
        for report in terminalreporter.getreports(outcome):
            for name, line in report.user_properties:
                if name == "said" and report.when == "call":
                    terminalreporter.write_line(line)


@pytest.fixture
async def stub_kubelet(server: LoopbackServer) -> AsyncIterator[StubKubelet]:
    async with stubkubelet.running(server.url, server.certificates) as kubelet:
        yield kubelet
