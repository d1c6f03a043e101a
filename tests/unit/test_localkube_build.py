"""What the local Kubernetes builds, and when it builds again."""

from pathlib import Path

import pytest

from localkube import build
from localkube.errors import ClusterError
from localkube.layout import KUBERNETES_VERSION
from localkube.toolchain import version_in

SOURCES = {"go.mod": b"module tools", "pause/main.go": b"package main"}


def test_equal_inputs_have_one_cache_key_whatever_their_order() -> None:
    reordered = dict(reversed(SOURCES.items()))

    assert build.inputs_hash(SOURCES, "go1.26") == build.inputs_hash(reordered, "go1.26")


@pytest.mark.parametrize(
    ("sources", "go_version"),
    [
        (SOURCES | {"go.mod": b"module other"}, "go1.26"),
        (SOURCES | {"coredns/main.go": b"package main"}, "go1.26"),
        ({"go.mod": b"module tools"}, "go1.26"),
        (SOURCES, "go1.27"),
    ],
    ids=["changed source", "added source", "removed source", "other compiler"],
)
def test_another_input_means_another_cache_key(sources: dict[str, bytes], go_version: str) -> None:
    assert build.inputs_hash(sources, go_version) != build.inputs_hash(SOURCES, "go1.26")


def test_other_flags_mean_another_cache_key(monkeypatch: pytest.MonkeyPatch) -> None:
    before = build.inputs_hash(SOURCES, "go1.26")

    monkeypatch.setattr(build, "FLAGS", ("-race",))

    assert build.inputs_hash(SOURCES, "go1.26") != before


def test_only_what_is_asked_for_and_absent_is_built() -> None:
    assert build.missing(["kubelet", "etcd", "kube-apiserver", "etcd"], {"etcd"}) == [
        "kube-apiserver",
        "kubelet",
    ]


def test_all_programs_of_one_need_are_one_compiler_run() -> None:
    command = build.go_command("go", ["etcd", "pause"], Path("/out"))

    assert command == [
        "go",
        "build",
        *build.FLAGS,
        "-o",
        "/out/",
        "go.etcd.io/etcd/server/v3",
        "./pause",
    ]


def test_servers_are_stamped_with_their_release_and_carry_no_symbols() -> None:
    assert build.stamp("v1.34.4").split() == [
        "-s",
        "-w",
        "-X",
        "k8s.io/component-base/version.gitVersion=v1.34.4",
        "-X",
        "k8s.io/component-base/version.gitMajor=1",
        "-X",
        "k8s.io/component-base/version.gitMinor=34",
    ]


def test_an_unknown_program_is_named_with_those_there_are() -> None:
    with pytest.raises(ClusterError, match=r"no such program: kubeadm; there are: kube-apiserver"):
        build.binaries(["kubeadm"])


def test_every_program_of_kubernetes_is_pinned_to_the_stamped_version() -> None:
    module = (build.MODULE / "go.mod").read_text()

    assert f"k8s.io/kubernetes {KUBERNETES_VERSION}\n" in module


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("go version go1.26.8 linux/amd64", (1, 26, 8)),
        ("Client Version: v1.32.4-dispatcher\nKustomize Version: v5.5.0", (1, 32, 4)),
        ("uv 0.9.5", (0, 9, 5)),
        ("no version", ()),
    ],
)
def test_versions_are_found_in_what_tools_say(text: str, version: tuple[int, ...]) -> None:
    assert version_in(text) == version
