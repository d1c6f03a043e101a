"""The arguments of ``hack/cluster`` and what each command calls."""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from localkube import build, configs, elsewhere, node, status
from localkube.errors import CannotRunHereError, ClusterError
from localkube.layout import Instance, instance
from localkube.progress import Progress
from localkube.servers import NODE_SERVERS

PROVIDERS = ("current", "kind", "node")
_DESCRIPTION = """A local Kubernetes for trying and testing.

Providers: 'kind' where a Docker daemon answers and kind is installed; 'node', one real
node as plain processes in namespaces of their own (Linux, root); 'current', whatever
the current context names, when asked for.
Exit codes: 0 done, 1 failed, 2 wrong arguments, 3 not possible on this machine."""


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    top = argparse.ArgumentParser(
        "hack/cluster", description=_DESCRIPTION, formatter_class=argparse.RawTextHelpFormatter
    )
    top.add_argument("--provider", choices=PROVIDERS, help="default: see above")
    top.add_argument("--name", default="chatbot", help="the instance (default: %(default)s)")
    top.add_argument("--yes", action="store_true", help="do not ask (provider 'current')")
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    commands.add_parser("up", help="start the cluster, or say that it runs")
    commands.add_parser("down", help="end the cluster and remove every trace of it")
    shown = commands.add_parser("status", help="what runs; exit code 1 unless it is up")
    shown.add_argument("--json", action="store_true")
    commands.add_parser("env", help='for eval "$(hack/cluster env)": plain kubectl works')
    commands.add_parser("kubectl", help="run kubectl with the arguments behind it")
    commands.add_parser("run", help="run a command in the node's network (provider 'node')")
    loaded = commands.add_parser("load-image", help="load docker archives into the cluster")
    loaded.add_argument("archives", nargs="+", type=Path, metavar="TAR")
    published = commands.add_parser("publish", help="print a URL on this machine for a Service")
    published.add_argument("service", metavar="NAMESPACE/SERVICE:PORT")
    for name, help_text in (
        ("stop", "end one server, as a fault does"),
        ("start", "start an ended server"),
        ("restart", "end one server and start it again"),
    ):
        part = commands.add_parser(name, help=f"{help_text} (provider 'node')")
        part.add_argument("server", choices=NODE_SERVERS)
    built = commands.add_parser("build", help="build programs, print the folder they are in")
    built.add_argument("programs", nargs="+", metavar="NAME", choices=tuple(build.PROGRAMS))
    return top


def split_passed_on(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Split into our own arguments and those that belong to the command we run.

    argparse cannot: it takes options behind `kubectl` for ours.
    """
    takes_value = {"--provider", "--name"}
    at = 0
    while at < len(arguments) and arguments[at].startswith("-"):
        at += 2 if arguments[at] in takes_value else 1
    if at < len(arguments) and arguments[at] in {"kubectl", "run"}:
        passed_on = list(arguments[at + 1 :])
        if passed_on[:1] == ["--"]:
            passed_on = passed_on[1:]
        return list(arguments[: at + 1]), passed_on
    return list(arguments), []


def main(arguments: Sequence[str]) -> int:
    """Run one command; return its exit code. Errors become one sentence on stderr."""
    ours, passed_on = split_passed_on(arguments)
    options = parser().parse_args(ours)
    options.arguments = passed_on
    try:
        if options.command == "build":
            print(build.binaries(options.programs))
            return 0
        cluster = instance(options.name, os.environ)
        code = _COMMANDS[options.command](cluster, options)
        sys.stdout.flush()
    except ClusterError as error:
        sys.stderr.write(f"hack/cluster: {error}\n")
        return error.exit_code
    except BrokenPipeError:
        # The reader has seen enough; the interpreter must not complain at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KeyboardInterrupt:
        sys.stderr.write("hack/cluster: interrupted; the next 'up' or 'down' cleans up\n")
        return 130
    else:
        return code


def default_provider(platform: str, user_id: int, *, kind_works: bool) -> str:
    """Return the provider for this machine; raises `CannotRunHereError` when there is none."""
    if kind_works:
        return "kind"
    if platform.startswith("linux") and user_id == 0:
        return "node"
    raise CannotRunHereError(
        "no local cluster is possible here: no Docker daemon with kind, "
        "and without Docker it takes Linux and root; "
        "an existing cluster can be used with '--provider current'"
    )


def provider_of(cluster: Instance, asked: str | None) -> str:
    """Return the provider of the instance: the one it was started with, asked for, or default.

    Raises `ClusterError` when the instance runs under another provider than asked for.
    """
    try:
        started = (cluster.state / "provider").read_text()
    except OSError:
        started = None
    if started and asked and started != asked:
        name = cluster.name
        raise ClusterError(
            f"cluster {name!r} was started with --provider {started}; end it first: "
            f"hack/cluster --name {name} down"
        )
    if known := started or asked:
        return known
    kind_works = elsewhere.docker_answers() and elsewhere.kind_installed()
    return default_provider(sys.platform, os.geteuid(), kind_works=kind_works)


def _up(cluster: Instance, options: argparse.Namespace) -> int:
    provider, progress = provider_of(cluster, options.provider), Progress()
    if provider == "node":
        node.up(cluster, progress)
    elif provider == "kind":
        elsewhere.kind_up(cluster, progress)
    else:
        elsewhere.current_up(cluster, progress, _always if options.yes else _ask)
    name = "" if options.name == "chatbot" else f"--name {options.name} "
    progress.line(f'kubectl works after: eval "$(hack/cluster {name}env)"')
    return 0


def _always(question: str) -> bool:
    sys.stderr.write(f"{question} yes (--yes)\n")
    return True


def _ask(question: str) -> bool:
    if not sys.stdin.isatty():
        raise ClusterError(f"{question} Nobody to ask; say --yes if so")
    sys.stderr.write(f"{question} [y/N] ")
    sys.stderr.flush()
    return sys.stdin.readline().strip().lower() in {"y", "yes"}


def _down(cluster: Instance, options: argparse.Namespace) -> int:
    downs = {
        "node": node.down,
        "kind": elsewhere.kind_down,
        "current": elsewhere.current_down,
    }
    downs[provider_of(cluster, options.provider)](cluster, Progress())
    return 0


def _status(cluster: Instance, options: argparse.Namespace) -> int:
    seen = status.look(cluster, provider_of(cluster, options.provider))
    print(json.dumps(seen.document(), indent=1) if options.json else seen.text())
    return 0 if seen.state == "up" else 1


def _env(cluster: Instance, options: argparse.Namespace) -> int:
    _require_started(cluster)
    lines = configs.environment_lines(str(cluster.kubeconfig), str(cluster.commands))
    sys.stdout.write(lines)
    return 0


def _kubectl(cluster: Instance, options: argparse.Namespace) -> int:
    _require_started(cluster)
    line = [str(cluster.commands / "kubectl"), *options.arguments]
    environment = {**os.environ, "KUBECONFIG": str(cluster.kubeconfig)}
    return subprocess.run(line, check=False, env=environment).returncode


def _require_started(cluster: Instance) -> None:
    if not cluster.kubeconfig.exists():
        raise ClusterError(f"the cluster {cluster.name!r} is not running; start it with 'up'")


def _load_image(cluster: Instance, options: argparse.Namespace) -> int:
    _require_started(cluster)
    provider = provider_of(cluster, options.provider)
    if provider == "node":
        node.load_images(cluster, options.archives)
    elif provider == "kind":
        elsewhere.kind_load_images(cluster, options.archives)
    else:
        raise ClusterError(
            "images cannot be loaded into the cluster of the current context; "
            "push them to a registry that it can read"
        )
    return 0


def _publish(cluster: Instance, options: argparse.Namespace) -> int:
    _require_started(cluster)
    local = provider_of(cluster, options.provider) == "node"
    port = (node.publish_service if local else elsewhere.service)(cluster, options.service)
    print(f"http://127.0.0.1:{port}")
    return 0


def _run(cluster: Instance, options: argparse.Namespace) -> int:
    _require_node(cluster, options)
    return node.shell(cluster, options.arguments)


def _server(cluster: Instance, options: argparse.Namespace) -> int:
    _require_node(cluster, options)
    if options.command in {"stop", "restart"}:
        node.stop(cluster, options.server)
    if options.command in {"start", "restart"}:
        node.start(cluster, options.server)
    return 0


def _require_node(cluster: Instance, options: argparse.Namespace) -> None:
    _require_started(cluster)
    provider = provider_of(cluster, options.provider)
    if provider != "node":
        raise ClusterError(f"'{options.command}' is there for the provider 'node' only")


_COMMANDS: dict[str, Callable[[Instance, argparse.Namespace], int]] = {
    "up": _up,
    "down": _down,
    "status": _status,
    "env": _env,
    "kubectl": _kubectl,
    "run": _run,
    "load-image": _load_image,
    "publish": _publish,
    "stop": _server,
    "start": _server,
    "restart": _server,
}
