"""Configuration texts and command lines of the local Kubernetes."""

import json
import subprocess
import tomllib
from pathlib import Path

import pytest

from localkube import cli, configs, preflight, servers
from localkube.errors import CannotRunHereError, ClusterError
from localkube.layout import Instance, instance, redirected_folders, search_path
from localkube.publish import split

CLUSTER = Instance("trial", Path("/state/trial"))


def test_the_state_folder_follows_the_users_settings() -> None:
    assert [
        instance("trial", {"HOME": "/home/me", "XDG_STATE_HOME": "/var/mine"}).state,
        instance("trial", {"HOME": "/home/me", "XDG_STATE_HOME": "not/absolute"}).state,
        instance("trial", {"HOME": "/home/me"}).state,
    ] == [
        Path("/var/mine/chatbot-operator/trial"),
        Path("/home/me/.local/state/chatbot-operator/trial"),
        Path("/home/me/.local/state/chatbot-operator/trial"),
    ]


def test_the_kubectl_that_env_offers_is_not_taken_for_the_machines() -> None:
    environment = {
        "HOME": "/home/me",
        "PATH": "/home/me/.local/state/chatbot-operator/chatbot/bin:/usr/bin:/home/me/bin",
    }

    assert search_path(environment) == "/usr/bin:/home/me/bin"


@pytest.mark.parametrize("name", ["", "../etc", "Upper", "-x", "x" * 33, "a/b"])
def test_a_name_that_could_leave_the_folder_is_refused(name: str) -> None:
    with pytest.raises(ClusterError, match="--name"):
        instance(name, {"HOME": "/home/me"})


def test_two_instances_share_no_path_and_no_cgroup() -> None:
    other = Instance("other", Path("/state/other"))

    mine = {str(path) for path in redirected_folders(CLUSTER).values()} | {CLUSTER.cgroup}
    theirs = {str(path) for path in redirected_folders(other).values()} | {other.cgroup}

    assert mine.isdisjoint(theirs)


def test_the_container_runtime_keeps_everything_in_the_state_folder() -> None:
    document = tomllib.loads(configs.containerd(CLUSTER, "/usr/lib/cni", "native"))

    cri = document["plugins"]["io.containerd.grpc.v1.cri"]
    assert (document["root"], document["state"], document["grpc"]["address"], cri) == (
        "/state/trial/node/containerd/root",
        "/state/trial/node/containerd/state",
        "/state/trial/containerd.sock",
        {
            "sandbox_image": "localhost/pause:3",
            "restrict_oom_score_adj": True,
            "netns_mounts_under_state_dir": True,
            "disable_apparmor": True,
            "containerd": {"snapshotter": "native"},
            "cni": {"bin_dir": "/usr/lib/cni", "conf_dir": "/state/trial/config/cni"},
        },
    )


def test_the_kubelet_runs_on_both_cgroup_versions_below_the_instances_cgroup() -> None:
    document = json.loads(configs.kubelet(CLUSTER))

    assert {key: document[key] for key in ("cgroupRoot", "cgroupDriver", "failCgroupV1")} == {
        "cgroupRoot": "/chatbot-operator-trial",
        "cgroupDriver": "cgroupfs",
        "failCgroupV1": False,
    }


def test_a_kubeconfig_carries_its_certificates() -> None:
    document = json.loads(configs.kubeconfig("https://127.0.0.1:1", b"ca", b"crt", b"key"))

    assert (document["clusters"], document["users"]) == (
        [
            {
                "name": "local",
                "cluster": {"server": "https://127.0.0.1:1", "certificate-authority-data": "Y2E="},
            }
        ],
        [
            {
                "name": "local",
                "user": {"client-certificate-data": "Y3J0", "client-key-data": "a2V5"},
            }
        ],
    )


def test_kind_gets_the_same_audit_log() -> None:
    document = json.loads(configs.kind_cluster(CLUSTER))

    node = document["nodes"][0]
    patch = json.loads(node["kubeadmConfigPatches"][0])
    inside = patch["apiServer"]["extraArgs"]["audit-log-path"]
    folders = {mount["containerPath"]: mount["hostPath"] for mount in node["extraMounts"]}
    assert Path(folders[str(Path(inside).parent)]) / Path(inside).name == CLUSTER.audit_log


def test_env_survives_a_folder_with_blanks_and_quotes() -> None:
    lines = configs.environment_lines("/it's here/kubeconfig", "/it's here/bin")
    shown = subprocess.run(
        ["sh", "-c", lines + 'printf "%s\\n" "$KUBECONFIG" "${PATH%%:*}"'],
        capture_output=True,
        text=True,
        check=True,
    ).stdout

    assert shown == "/it's here/kubeconfig\n/it's here/bin\n"


def test_every_server_has_a_command_line_with_absolute_paths() -> None:
    commands = servers.node_commands(CLUSTER, Path("/built"), "/usr/bin/containerd")

    assert list(commands) == list(servers.NODE_SERVERS)
    assert [line[0] for line in commands.values() if not line[0].startswith("/")] == []


def test_published_services_are_named_by_namespace_name_and_port() -> None:
    assert split("team-a/api:8080") == ("team-a", "api", 8080)


@pytest.mark.parametrize("text", ["api:8080", "a/api", "a/api:http", "a/api:0", "a/api:70000", ""])
def test_anything_else_is_refused_with_the_form_it_should_have(text: str) -> None:
    with pytest.raises(ClusterError, match="expected NAMESPACE/SERVICE:PORT"):
        split(text)


def test_arguments_behind_kubectl_are_kubectls() -> None:
    assert [
        cli.split_passed_on(["--name", "kubectl", "kubectl", "-n", "x", "get", "pods"]),
        cli.split_passed_on(["--yes", "run", "--", "ip", "-s", "link"]),
        cli.split_passed_on(["status", "--json"]),
    ] == [
        (["--name", "kubectl", "kubectl"], ["-n", "x", "get", "pods"]),
        (["--yes", "run"], ["ip", "-s", "link"]),
        (["status", "--json"], []),
    ]


def test_the_provider_follows_the_machine() -> None:
    assert [
        cli.default_provider("darwin", 501, kind_works=True),
        cli.default_provider("linux", 0, kind_works=True),
        cli.default_provider("linux", 0, kind_works=False),
    ] == ["kind", "kind", "node"]


def test_a_machine_without_docker_and_root_is_told_what_it_takes() -> None:
    with pytest.raises(CannotRunHereError, match="no Docker daemon with kind"):
        cli.default_provider("linux", 1000, kind_works=False)


def test_what_a_node_cannot_do_without_is_named_before_anything_is_built() -> None:
    assert [
        preflight.obstacles("linux", 0, "6.1.0-18-amd64"),
        preflight.obstacles("darwin", 501, "23.1.0"),
        preflight.obstacles("linux", 1000, "5.4.0"),
    ] == [
        [],
        ["the provider 'node' needs Linux, this is darwin"],
        [
            "the provider 'node' needs root (namespaces and mounts); try 'sudo'",
            "kernel 5.4.0: at least 5.13 is needed for nftables Services",
        ],
    ]
