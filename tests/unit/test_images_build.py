from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from images import application, cli, database, language_model, process, s3_gateway, wheelhouse
from images.build import NAMES, Built, as_json, build, default_names, registry_names
from images.cache import REPOSITORY
from images.errors import ImageError
from images.stand_in import StandIn

DOCKERFILES = {
    name: (REPOSITORY / f"Dockerfile.{name}").read_text() for name in ("operator", "runtime")
}


def quiet(line: str) -> None:
    pass


@pytest.mark.parametrize("name", DOCKERFILES)
def test_a_dockerfile_installs_one_extra_and_runs_as_a_numeric_user(name: str) -> None:
    text = DOCKERFILES[name]
    assert re.findall(r"chatbot-cluster\[(\w+)\]", text) == [name]
    assert re.findall(r"^USER (.*)$", text, re.MULTILINE) == ["10001:10001"]
    assert re.findall(r"^ENTRYPOINT (.*)$", text, re.MULTILINE) == [
        f'["/opt/chatbot/bin/chatbot-{name}"]'
    ]
    assert re.findall(r"^ARG BASE_IMAGE=(.*)$", text, re.MULTILINE) == [application.DOCKER_BASE]


@pytest.mark.parametrize("name", DOCKERFILES)
def test_a_dockerfile_takes_no_source_tree_into_the_image(name: str) -> None:
    last_stage = DOCKERFILES[name].rpartition("FROM ${BASE_IMAGE}")[2]
    copies = re.findall(r"^COPY (.*)$", last_stage, re.MULTILINE)
    assert copies == [
        "--from=dependencies /opt/chatbot /opt/chatbot",
        "--from=application /application /opt/chatbot",
    ]


def test_both_dockerfiles_are_the_same_but_for_their_names() -> None:
    def neutral(text: str) -> list[str]:
        lines = text.replace("runtime", "NAME").replace("operator", "NAME").splitlines()
        return [line for line in lines if not line.startswith("#") and "description" not in line]

    assert neutral(DOCKERFILES["operator"]) == neutral(DOCKERFILES["runtime"])


def test_with_docker_no_stand_in_is_built() -> None:
    assert default_names(docker=True) == ("operator", "runtime")
    assert default_names(docker=False) == NAMES


def test_an_unknown_image_is_refused_before_anything_is_built() -> None:
    with pytest.raises(ImageError, match=r"redis.*there are: operator, runtime"):
        build(["operator", "redis"], docker=False, say=quiet)


def test_only_the_products_own_images_have_a_name_in_a_registry() -> None:
    built = {name: Built(f"localhost/chatbot-{name}:1", f"/{name}.tar", 1) for name in NAMES}
    names = registry_names(built, "registry.example/team/", "0.1.0")
    assert names == {
        "operator": "registry.example/team/chatbot-operator:0.1.0",
        "runtime": "registry.example/team/chatbot-runtime:0.1.0",
    }
    assert as_json({"runtime": built["runtime"]}, names) == {
        "runtime": {
            "image": "localhost/chatbot-runtime:1",
            "tar": "/runtime.tar",
            "size_bytes": 1,
            "registry_image": "registry.example/team/chatbot-runtime:0.1.0",
        }
    }


def test_pushing_without_a_registry_is_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["images", "--push"])
    assert ended.value.code == 2
    assert "--registry" in capsys.readouterr().err


def test_docker_and_the_local_base_give_different_tags() -> None:
    tags = {
        application.tag("runtime", application.target(docker=docker)) for docker in (True, False)
    }
    assert len(tags) == 2


@pytest.mark.parametrize(
    "stand_in", [database.STAND_IN, s3_gateway.STAND_IN, language_model.STAND_IN]
)
def test_a_stand_in_keeps_its_tag_while_nothing_changes(stand_in: StandIn) -> None:
    assert re.fullmatch(r"[0-9a-f]{12}", stand_in.tag())
    assert stand_in.tag() == stand_in.tag()


def test_a_requirement_carries_the_hashes_of_the_lock_file() -> None:
    line = wheelhouse.locked("kopf").requirement()
    assert re.fullmatch(r"kopf==[0-9.]+( --hash=sha256:[0-9a-f]{64})+", line)


def test_the_selected_versions_are_read_without_comments_and_markers() -> None:
    selected = "# made by uv\nkopf==1.45.2\nnumpy==2.4.1 ; python_version < '3.14'\n    # via x\n"
    assert wheelhouse.versions_in(selected) == [("kopf", "1.45.2"), ("numpy", "2.4.1")]


def test_a_package_outside_the_lock_file_is_named() -> None:
    with pytest.raises(ImageError, match=r"0 versions of no-such-package"):
        wheelhouse.locked("no-such-package")


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ([sys.executable, "-c", "raise SystemExit('the disk is full')"], "the disk is full"),
        (["no-such-command"], "no-such-command is not installed"),
    ],
)
def test_a_failed_command_says_why(command: Sequence[str], message: str) -> None:
    with pytest.raises(ImageError, match=f"packing.*{message}|packing(.|\n)*{message}"):
        process.run("packing", command, quiet)


def test_a_long_command_is_heard_of_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "PROGRESS_INTERVAL_S", 0.05)
    lines: list[str] = []
    process.run("packing", [sys.executable, "-c", "import time; time.sleep(0.3)"], lines.append)
    assert lines[:2] == ["packing", "packing, 0 s"]


def test_an_interrupted_command_leaves_no_process(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def interrupt(line: str) -> None:
        if "," in line:
            raise KeyboardInterrupt

    monkeypatch.setattr(process, "PROGRESS_INTERVAL_S", 0.3)
    note = tmp_path / "pid"
    program = f"import os, time; open({str(note)!r}, 'w').write(str(os.getpid())); time.sleep(60)"
    with pytest.raises(KeyboardInterrupt):
        process.run("packing", [sys.executable, "-c", program], interrupt)
    assert not Path(f"/proc/{note.read_text()}").exists()
