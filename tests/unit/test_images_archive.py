from __future__ import annotations

import hashlib
import json
import os
import tarfile
from pathlib import Path

from images import archive


def tree_in(folder: Path, *, mtime_s: int) -> Path:
    tree = folder / "tree"
    (tree / "bin").mkdir(parents=True)
    (tree / "bin/tool").write_bytes(b"tool")
    (tree / "bin/tool").chmod(0o755)
    (tree / "bin/link").symlink_to("tool")
    (tree / "data").mkdir()
    os.utime(tree / "bin/tool", (mtime_s, mtime_s))
    return tree


def test_equal_trees_give_equal_bytes_whenever_they_were_written(tmp_path: Path) -> None:
    layers = []
    for name, mtime_s in (("first", 1_000), ("second", 2_000_000)):
        folder = tmp_path / name
        layers.append(archive.write_layer(tree_in(folder, mtime_s=mtime_s), folder / "layer.tar"))
    assert layers[0].digest == layers[1].digest
    digest = hashlib.sha256(layers[0].path.read_bytes()).hexdigest()
    assert layers[0].digest == f"sha256:{digest}"


def test_a_layer_keeps_modes_and_links_and_names_owners_by_number(tmp_path: Path) -> None:
    layer = archive.write_layer(
        tree_in(tmp_path, mtime_s=1),
        tmp_path / "layer.tar",
        lambda name: (999, 998) if name == "data" else (0, 0),
    )
    with tarfile.open(layer.path) as tar:
        entries = [
            (entry.name, entry.mode, entry.uid, entry.gid, entry.uname, entry.linkname)
            for entry in tar
            if entry.name != "bin"
        ]
    assert entries == [
        ("bin/link", 0o777, 0, 0, "", "tool"),
        ("bin/tool", 0o755, 0, 0, "", ""),
        ("data", 0o755, 999, 998, "", ""),
    ]


def test_an_image_names_its_layers_by_their_hashes_and_runs_as_configured(tmp_path: Path) -> None:
    layer = archive.write_layer(tree_in(tmp_path, mtime_s=1), tmp_path / "layer.tar")
    config = archive.ImageConfig(
        env={"B": "2", "A": "1"},
        entrypoint=("/bin/tool",),
        command=("serve",),
        user="999:999",
        ports=(5432,),
        stop_signal="SIGINT",
        labels={"title": "tool"},
    )
    archive.write_image(tmp_path / "image.tar", "localhost/tool:1", [layer], config)

    with tarfile.open(tmp_path / "image.tar") as tar:
        contents = {entry.name: tar.extractfile(entry).read() for entry in tar}  # type: ignore[union-attr]  # files only
    (manifest,) = json.loads(contents.pop("manifest.json"))
    configuration = json.loads(contents[manifest["Config"]])
    assert manifest == {
        "Config": hashlib.sha256(contents[manifest["Config"]]).hexdigest() + ".json",
        "RepoTags": ["localhost/tool:1"],
        "Layers": [layer.digest.removeprefix("sha256:") + ".tar"],
    }
    assert contents[manifest["Layers"][0]] == layer.path.read_bytes()
    assert configuration["rootfs"] == {"type": "layers", "diff_ids": [layer.digest]}
    assert configuration["config"] == {
        "Env": ["A=1", "B=2"],
        "Entrypoint": ["/bin/tool"],
        "Cmd": ["serve"],
        "User": "999:999",
        "ExposedPorts": {"5432/tcp": {}},
        "StopSignal": "SIGINT",
        "Labels": {"title": "tool"},
        "WorkingDir": "/",
    }


def test_layers_come_back_from_an_archive_bottom_first(tmp_path: Path) -> None:
    lower = archive.write_layer(tree_in(tmp_path / "a", mtime_s=1), tmp_path / "lower.tar")
    (tmp_path / "b").mkdir()
    (tmp_path / "b/file").write_text("upper")
    upper = archive.write_layer(tmp_path / "b", tmp_path / "upper.tar")
    config = archive.ImageConfig(env={})
    archive.write_image(tmp_path / "image.tar", "localhost/two:1", [lower, upper], config)
    (tmp_path / "out").mkdir()
    read = archive.read_layers(tmp_path / "image.tar", tmp_path / "out")
    assert [layer.digest for layer in read] == [lower.digest, upper.digest]
