"""The operator as a process of its own: started, killed, read from outside."""

from __future__ import annotations

import os
import sys
from collections import Counter
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from typing import Final

import httpx
from prometheus_client.parser import text_string_to_metric_families

from localkube import processes
from localkube.processes import Process
from localkube.publish import free_port
from operatorbench.audit import VERBS

_TICKS_PER_S: Final = os.sysconf("SC_CLK_TCK")
_GRACE_S: Final = 5.0
_LEASE: Final = "chatbot-system/chatbot-operator"
_PREFIX: Final = "chatbot_operator_"

Labels = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Reading:
    """The operator's metrics at one moment, with the CPU seconds that it had used until then."""

    samples: dict[tuple[str, Labels], float]
    cpu_s: float

    def total(self, name: str, **wanted: str) -> float:
        """Return the sum of a metric's samples that carry the labels."""
        return sum(
            value
            for (sample, labels), value in self.samples.items()
            if sample == _PREFIX + name and wanted.items() <= dict(labels).items()
        )

    def calls(self) -> Counter[tuple[str, str]]:
        """Return the answered requests to the API server by (verb, kind)."""
        found: Counter[tuple[str, str]] = Counter()
        for (sample, labels), value in self.samples.items():
            of = dict(labels)
            if sample == f"{_PREFIX}kube_calls_total" and of["status"] != "0":
                found[of["verb"], of["kind"]] += int(value)
        return found

    def writes(self) -> Counter[str]:
        """Return the writes as the audit log names them, renewals of the Lease left out."""
        found: Counter[str] = Counter()
        for (verb, kind), count in self.calls().items():
            if verb in VERBS and kind != "Lease":
                found[VERBS[verb]] += count
        return found


def lag_s(before: Reading, after: Reading, share: float) -> float:
    """Return a quantile of the loop's lag between two readings, interpolated in its bucket."""
    name = f"{_PREFIX}loop_lag_seconds_bucket"
    counts = sorted(
        (float(dict(labels)["le"]), value - before.samples.get((sample, labels), 0.0))
        for (sample, labels), value in after.samples.items()
        if sample == name
    )
    rank, lower_s, below = share * counts[-1][1], 0.0, 0.0
    for bound_s, count in counts:
        if count >= rank and count > below:
            if bound_s == float("inf"):
                return lower_s
            return lower_s + (bound_s - lower_s) * (rank - below) / (count - below)
        lower_s, below = bound_s, count
    return lower_s


@dataclass(slots=True)
class Subject:
    """Starts operators one after the other; `files` holds their logs and process files.

    `leads` = it shares a Lease with others; alone it writes from the first moment on.
    """

    files: Path
    kubeconfig: Path
    name: str = "operator"
    leads: bool = False
    port: int = field(default_factory=free_port)
    process: Process | None = None
    peak_kb: int = 0

    def start(self) -> None:
        """Start an operator that watches the whole cluster."""
        command = [sys.executable, "-c", "from chatbot_operator.main import main; main()"]
        environment = {**os.environ, "KUBECONFIG": str(self.kubeconfig), "PORT": str(self.port)}
        environment["LEADER_ELECT"] = _LEASE if self.leads else ""
        log = self.files / "log" / f"{self.name}.log"
        self.process = processes.spawn(command, log, environment, dies_with_parent=True)
        # What a crash of this benchmark leaves behind is ended by the next start.
        processes.save(self.files / "run" / f"{self.name}.json", self.process)

    def kill(self) -> None:
        """End the operator as a lost node does: without a word."""
        self._end(0.0)

    def stop(self) -> None:
        """End the operator as Kubernetes does."""
        self._end(_GRACE_S)

    def _end(self, grace_s: float) -> None:
        if self.process is not None:
            self.peak_kb = max(self.peak_kb, self._status_kb("VmHWM"))
            processes.end([self.process], grace_s)
            self.process = None

    @property
    def alive(self) -> bool:
        """Whether it runs."""
        return self.process is not None and self.process.alive

    def rss_kb(self) -> int:
        """Return its resident memory now."""
        return self._status_kb("VmRSS")

    def _status_kb(self, field_name: str) -> int:
        assert self.process is not None
        try:
            lines = Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
        except OSError:
            return 0
        found = [line.split()[1] for line in lines if line.startswith(f"{field_name}:")]
        return int(found[0]) if found else 0

    def _cpu_s(self) -> float:
        assert self.process is not None
        text = Path(f"/proc/{self.process.pid}/stat").read_text()
        fields = text.rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICKS_PER_S

    async def ready(self) -> bool:
        """Whether it has listed everything once."""
        return await self._page("readyz") is not None

    async def read(self) -> Reading:
        """Return its metrics. Raises RuntimeError when it does not answer."""
        text = await self._page("metrics")
        if text is None:
            raise RuntimeError("the operator does not answer; see its log")
        samples = {
            (sample.name, tuple(sorted(sample.labels.items()))): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        }
        return Reading(samples, self._cpu_s())

    async def _page(self, name: str) -> str | None:
        try:
            async with httpx.AsyncClient(trust_env=False, timeout=10) as http:
                answer = await http.get(f"http://127.0.0.1:{self.port}/{name}")
        except httpx.HTTPError:
            return None
        return answer.text if answer.status_code == HTTPStatus.OK else None
