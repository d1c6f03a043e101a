"""Small parts of the local Kubernetes on real processes, files and messages."""

import asyncio
import hashlib
import io
import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from localkube import cgroups, forward, keeper, processes
from localkube.debian import no_service_starts
from localkube.errors import ClusterError
from localkube.images import scratch_image
from localkube.progress import Estimate, Progress
from localkube.resolver import addresses, query

# The answer of a name server to the query below: one question, one pointer, one address.
ANSWER = bytes.fromhex(
    "00078580 0001 0001 0000 0000 03617069 01610373766307636c7573746572056c6f63616c00 0001 0001"
    "c00c 0001 0001 00000002 0004 0a600a02".replace(" ", "")
)


def test_a_name_is_asked_for_in_the_wire_format() -> None:
    assert query(7, "api.a.svc.cluster.local") == bytes.fromhex(
        "0007010000010000000000000361706901610373766307636c7573746572056c6f63616c0000010001"
    )


def test_the_answers_addresses_are_read() -> None:
    assert addresses(7, ANSWER) == ["10.96.10.2"]


def test_an_answer_to_another_question_counts_for_nothing() -> None:
    assert addresses(8, ANSWER) == []


@pytest.mark.parametrize("length", [0, 11, 20, len(ANSWER) - 30, len(ANSWER) - 12])
def test_a_cut_off_answer_is_refused(length: int) -> None:
    with pytest.raises(ValueError, match="cut off"):
        addresses(7, ANSWER[:length])


def test_an_image_archive_names_its_parts_by_their_content() -> None:
    archive = scratch_image("localhost/pause:3", "/pause", b"program", "amd64")

    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        files = {name: tar.extractfile(name).read() for name in tar.getnames()}  # type: ignore[union-attr] # all are files
    manifest = json.loads(files["manifest.json"])[0]
    config = files[manifest["Config"]]
    layer = files[manifest["Layers"][0]]
    with tarfile.open(fileobj=io.BytesIO(layer)) as tar:
        entry = tar.getmembers()[0]
    assert (manifest["RepoTags"], manifest["Config"], json.loads(config)["rootfs"]["diff_ids"]) == (
        ["localhost/pause:3"],
        f"{hashlib.sha256(config).hexdigest()}.json",
        [f"sha256:{hashlib.sha256(layer).hexdigest()}"],
    )
    assert (entry.name, entry.mode, entry.size) == ("pause", 0o755, 7)


def test_a_process_is_ended_by_pid_and_start_time(tmp_path: Path) -> None:
    sleeper = processes.spawn(["sleep", "60"], tmp_path / "log")
    processes.save(tmp_path / "sleeper.json", sleeper)

    assert processes.load(tmp_path / "sleeper.json") == sleeper
    assert processes.end([sleeper], grace_s=5) == []
    assert processes.load(tmp_path / "sleeper.json") is None


def test_a_process_that_took_over_a_pid_is_left_alone(tmp_path: Path) -> None:
    sleeper = processes.spawn(["sleep", "60"], tmp_path / "log")
    earlier = processes.Process(sleeper.pid, sleeper.start_ticks - 1)

    processes.end([earlier], grace_s=0.2)

    assert sleeper.alive
    processes.end([sleeper], grace_s=0)


def test_a_process_that_ignores_the_first_signal_gets_the_last(tmp_path: Path) -> None:
    ready = tmp_path / "ready"
    script = f"trap '' TERM; touch {ready}; while :; do sleep 0.1; done"
    stubborn = processes.spawn(["sh", "-c", script], tmp_path / "log")
    while not ready.exists():
        assert stubborn.alive

    assert processes.end([stubborn], grace_s=0.3) == []


def test_children_die_with_a_killed_parent(tmp_path: Path) -> None:
    script = (
        "import sys, os, signal, time, pathlib; from localkube import processes\n"
        f"child = processes.spawn(['sleep', '60'], pathlib.Path({str(tmp_path / 'log')!r}),"
        " dies_with_parent=True)\n"
        f"processes.save(pathlib.Path({str(tmp_path / 'child.json')!r}), child)\n"
        "time.sleep(0.3)\n"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    path = os.pathsep.join(sys.path)
    subprocess.run([sys.executable, "-c", script], env={"PYTHONPATH": path}, check=False)

    saved = json.loads((tmp_path / "child.json").read_text())
    child = processes.Process(saved["pid"], saved["start_ticks"])
    assert processes.end([child], grace_s=0) == []
    assert not child.alive


def test_hierarchies_of_both_cgroup_versions_are_found() -> None:
    mounts = (
        "tmpfs /sys/fs/cgroup tmpfs rw 0 0\n"
        "cgroup /sys/fs/cgroup/memory cgroup rw,memory 0 0\n"
        "cgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n"
    )

    assert cgroups.hierarchies(mounts) == [
        Path("/sys/fs/cgroup/memory"),
        Path("/sys/fs/cgroup/unified"),
    ]


def test_volume_folders_open_up_for_every_user(tmp_path: Path) -> None:
    (tmp_path / "pvc-1").mkdir(mode=0o750)

    keeper.open_up(tmp_path)

    assert (tmp_path / "pvc-1").stat().st_mode & 0o777 == 0o777


@pytest.mark.parametrize("previous", [None, b"#!/bin/sh\nexit 104\n"])
def test_services_are_refused_during_the_install_only(
    tmp_path: Path, previous: bytes | None
) -> None:
    policy = tmp_path / "policy-rc.d"
    if previous is not None:
        policy.write_bytes(previous)
        policy.chmod(0o755)

    with no_service_starts(policy):
        during = subprocess.run([policy], check=False).returncode

    after = policy.read_bytes() if policy.exists() else None
    assert (during, after) == (101, previous)


def test_a_refusal_left_by_a_killed_install_is_removed_by_the_next(tmp_path: Path) -> None:
    policy = tmp_path / "policy-rc.d"
    with no_service_starts(policy):
        left_behind = policy.read_bytes()
    policy.write_bytes(left_behind)

    with no_service_starts(policy):
        pass

    assert not policy.exists()


def test_progress_tells_what_is_left_and_does_not_promise_the_past() -> None:
    compiling = Estimate("compiling etcd", 10)

    assert [compiling.sentence(2.4), compiling.sentence(15)] == [
        "compiling etcd, about 8 s left",
        "compiling etcd, 5 s longer than expected",
    ]


def test_a_failed_step_shows_the_end_of_its_output(tmp_path: Path) -> None:
    command = ["sh", "-c", "echo the reason; exit 3"]

    with pytest.raises(ClusterError, match=r"compiling failed(.|\n)*the reason"):
        Progress().run(command, dict(os.environ), tmp_path, Estimate("compiling", 1))


async def test_a_published_port_carries_both_directions_to_their_ends() -> None:
    async def shout(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write((await reader.read()).upper())
        await writer.drain()
        writer.close()

    behind = await asyncio.start_server(shout, "127.0.0.1", 0)
    target = forward.Target("127.0.0.1", behind.sockets[0].getsockname()[1], is_service=False)
    front = await asyncio.start_server(
        lambda reader, writer: forward.serve_one(target, reader, writer), "127.0.0.1", 0
    )
    async with behind, front:
        port = front.sockets[0].getsockname()[1]
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"quiet " * 100_000)
        writer.write_eof()
        answer = await asyncio.wait_for(reader.read(), timeout=10)
        writer.close()

    assert answer == b"QUIET " * 100_000
