"""The command line of `hack/release`."""

from __future__ import annotations

import argparse
import json
import signal
import sys
from collections.abc import Sequence

from images import application
from images.build import NAMES, as_json, build, default_names, push, registry_names
from images.errors import ImageError
from images.process import say_to_stderr
from localkube.errors import ClusterError

FAILED = 1
STOPPED = 130


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    top = argparse.ArgumentParser(
        prog="hack/release", description="Build what a release consists of."
    )
    commands = top.add_subparsers(dest="command", required=True)
    images = commands.add_parser(
        "images",
        help="build container images",
        description="Build container images into the user's cache and print a JSON map of them.",
    )
    images.add_argument("--only", nargs="+", metavar="NAME", choices=NAMES, help="of: %(choices)s")
    images.add_argument("--registry", metavar="R", help="such as registry.example.com/me")
    images.add_argument("--push", action="store_true", help="push operator and runtime there")
    return top


def main(arguments: Sequence[str]) -> int:
    """Run the command; returns the exit status: 0 done, 1 failed, 2 wrong usage, 130 stopped."""
    top = parser()
    options = top.parse_args(arguments)
    if options.push and not options.registry:
        top.error("--push: name the registry with --registry R; allowed is a host with a path")
    # Ends like Ctrl-C does, so that the compiler or builder below it ends too.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        docker = application.docker_answers()
        built = build(options.only or default_names(docker=docker), docker=docker)
        targets = registry_names(built, options.registry or "", application.version())
        if options.push:
            push(built, targets, docker=docker, say=say_to_stderr)
    except (ImageError, ClusterError) as error:
        print(f"hack/release: {error}", file=sys.stderr)
        return FAILED
    except KeyboardInterrupt:
        print("hack/release: stopped; the next run continues from the cache", file=sys.stderr)
        return STOPPED
    print(json.dumps(as_json(built, targets if options.registry else {}), indent=2))
    return 0
