"""An image of one program and nothing else, as a ``docker save`` archive. Pure.

Format: Docker image specification v1.2, "Combined Image JSON + Filesystem
Changeset Format". Times and owners are zero, so equal inputs give equal bytes.
"""

import hashlib
import io
import json
import tarfile


def scratch_image(tag: str, path: str, program: bytes, architecture: str) -> bytes:
    """Return the archive of an image whose only file is the program, run as entry point."""
    layer = _tar({path.lstrip("/"): (program, 0o755)})
    config = {
        "architecture": architecture,
        "os": "linux",
        "config": {"Entrypoint": [path], "User": "65535:65535"},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(layer).hexdigest()}"]},
    }
    text = json.dumps(config).encode()
    config_name = f"{hashlib.sha256(text).hexdigest()}.json"
    manifest = [{"Config": config_name, "RepoTags": [tag], "Layers": ["layer.tar"]}]
    return _tar(
        {
            "manifest.json": (json.dumps(manifest).encode(), 0o644),
            config_name: (text, 0o644),
            "layer.tar": (layer, 0o644),
        }
    )


def _tar(files: dict[str, tuple[bytes, int]]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name, (data, mode) in files.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(data), mode
            archive.addfile(entry, io.BytesIO(data))
    return out.getvalue()
