"""Names of container images, split as the OCI distribution tools split them."""

import re
from dataclasses import dataclass

_HOST = r"(?:[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?|\[[0-9A-Fa-f:]+\])(?::[0-9]+)?"
_PART = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_PATH = rf"{_PART}(?:/{_PART})*"
_TAG = r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}"
DIGEST = r"sha256:[0-9a-f]{64}"
NAME = rf"{_HOST}/{_PATH}(?::{_TAG})?(?:@{DIGEST})?"
"""A whole name with its host, as a regular expression that RE2 and Python read alike."""
REGISTRY = rf"{_HOST}(?:/{_PATH})?"
"""A registry's host, or a host and the start of a path."""
LONGEST = 1024
"""Longest whole name, in characters."""

_HOST_ONLY = re.compile(_HOST, re.ASCII)
_PATH_AND_TAG = re.compile(rf"({_PATH})(?::({_TAG}))?", re.ASCII)
_DIGEST_ONLY = re.compile(DIGEST, re.ASCII)


class ImageError(ValueError):
    """A text that names no image; it says why."""


@dataclass(frozen=True)
class Image:
    """An image's name, split.

    Args:
        repository: registry and path, such as `edge.local/models/digits`.
        tag: what follows the colon, or None.
        digest: `sha256:` and 64 hexadecimal digits, or None.
    """

    repository: str
    tag: str | None
    digest: str | None

    def comes_from(self, registry: str) -> bool:
        """Whether the image lies under a registry, given as host or as host and path."""
        return self.repository.startswith(registry + "/")


def parse(text: str) -> Image:
    """Split an image's name; a name without a host belongs to docker.io, as in containerd.

    Raises:
        ImageError: the text is empty or no image's name, or its digest is no sha256.
    """
    if not text.strip():
        raise ImageError("is empty")
    name, at, digest = text.partition("@")
    first, slash, rest = name.partition("/")
    if slash and (set(".:") & set(first) or first == "localhost"):
        host, path = first, rest
    else:
        host, path = "docker.io", name if slash else f"library/{name}"
    match = _PATH_AND_TAG.fullmatch(path)
    if match is None or not _HOST_ONLY.fullmatch(host) or len(f"{host}/{path}{at}{digest}") > LONGEST:
        raise ImageError(f"{text[:200]!r} is not an image name (registry/path:tag@sha256:digest)")
    if at and not _DIGEST_ONLY.fullmatch(digest):
        raise ImageError(f"{text[:200]!r} has a digest that is not sha256: and 64 hexadecimal digits")
    return Image(f"{host}/{match[1]}", match[2], digest or None)
