"""The local images that stand in for public ones where no registry can be reached.

Each is one layer on the local base image and keeps the public image's contract: command, user,
folders and environment. They are for trying and testing on one machine and never pushed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from images import archive, base, cache
from images.process import Say


@dataclass(frozen=True, slots=True)
class StandIn:
    """How one stand-in is made; `fill` puts its files into an empty folder."""

    name: str
    inputs: tuple[str, ...]
    files: tuple[Path, ...]
    fill: Callable[[Path, Say], None]
    config: archive.ImageConfig
    owner: archive.Owner = archive.root_owner

    def tag(self) -> str:
        """Return the content hash of everything that enters the image."""
        words = [self.name, *self.inputs, base.tag(), repr(self.config)]
        return cache.tag_of(words, [*self.files, Path(__file__), Path(archive.__file__)])

    def build(self, image: str, target: Path, say: Say) -> None:
        """Write the image as a docker-archive tar; raises ImageError."""
        ground = base.build(say)
        with cache.staging(self.name) as scratch:
            tree = scratch / "tree"
            tree.mkdir()
            self.fill(tree, say)
            say(f"{self.name}: writing the archive")
            layer = archive.write_layer(tree, scratch / "layer.tar", self.owner)
            archive.write_image(scratch / "image.tar", image, [ground.layer, layer], self.config)
            (scratch / "image.tar").replace(target)
