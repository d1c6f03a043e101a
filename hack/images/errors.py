"""What can go wrong while an image is built, in words for the person who started the build."""

from __future__ import annotations


class ImageError(Exception):
    """An image could not be built; the message names the image's step and the next thing to do."""
