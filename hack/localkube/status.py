"""What runs, for people and for scripts."""

from dataclasses import asdict, dataclass
from typing import Any

from localkube import cgroups, elsewhere, namespaces, node, publish, servers
from localkube.layout import NODE_NAME, Instance


@dataclass(frozen=True, slots=True)
class Status:
    """One look at an instance; `state` is `up`, `partial` (a part is ended) or `down`."""

    name: str
    provider: str
    state: str
    state_folder: str
    kubeconfig: str
    kubectl: str
    api_url: str | None
    audit_log: str
    log_folder: str
    cgroup: str | None
    keeper_pid: int | None
    node_ready: bool | None
    servers: dict[str, int | None]
    published: dict[str, str]

    def document(self) -> dict[str, Any]:
        """Return the status with the keys of the JSON form."""
        return {_camel(key): value for key, value in asdict(self).items()}

    def text(self) -> str:
        """Return the status as lines for people."""
        lines = [f"cluster {self.name} ({self.provider}): {self.state}"]
        if self.state == "down":
            return lines[0]
        lines += [f"  API server   {self.api_url}"] if self.api_url else []
        lines += [f"  kubeconfig   {self.kubeconfig}", f"  logs         {self.log_folder}"]
        for name, pid in self.servers.items():
            lines.append(f"  {name:<20} {f'pid {pid}' if pid else 'not running'}")
        lines += [f"  {service} at {url}" for service, url in self.published.items()]
        return "\n".join(lines)


def _camel(key: str) -> str:
    first, *rest = key.split("_")
    return first + "".join(part.capitalize() for part in rest)


def look(cluster: Instance, provider: str) -> Status:
    """Return the instance's status; never raises for a part that is not there."""
    published = publish.ports(cluster)
    api_port = published.pop(publish.API, None)
    ours = provider == "node"
    pids = {name: _pid(cluster, name) for name in servers.NODE_SERVERS} if ours else {}
    keeper = _pid(cluster, namespaces.KEEPER) if ours else None
    answers = node.healthy(cluster) if ours else elsewhere.ready(cluster)
    remains = cgroups.exists(cluster.cgroup) if ours else cluster.state.exists()
    return Status(
        name=cluster.name,
        provider=provider,
        state="up" if answers else "partial" if remains else "down",
        state_folder=str(cluster.state),
        kubeconfig=str(cluster.kubeconfig),
        kubectl=str(cluster.commands / "kubectl"),
        api_url=f"https://127.0.0.1:{api_port}" if api_port else None,
        audit_log=str(cluster.audit_log),
        log_folder=str(cluster.log),
        cgroup=cluster.cgroup if ours else None,
        keeper_pid=keeper,
        node_ready=node.client(cluster).node_ready(NODE_NAME) if ours and api_port else None,
        servers=pids,
        published={key: f"http://127.0.0.1:{port}" for key, port in published.items()},
    )


def _pid(cluster: Instance, name: str) -> int | None:
    process = namespaces.running(cluster, name)
    return process.pid if process else None
