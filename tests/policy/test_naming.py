"""Images' names: how they are split, and what `image-digest` and `image-registry` make of them."""

import contextlib
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies import images, naming
from policies.config import ConfigError, Settings, load
from policies.rules import Resource
from policies.values import Unknown

DIGEST = "sha256:" + "a" * 64
POD = "kubernetes:core/v1:Pod"
REGISTRIES = naming.RegistrySettings(registries=("edge.local", "registry.example:5000/team"))


def pod(image: Any, group: str = "containers") -> Resource:
    """A pod with one container."""
    container = {"name": "c"} | ({} if image is None else {"image": image})
    return Resource(POD, {"spec": {group: [container]}})


@pytest.mark.parametrize(
    ("text", "repository", "tag", "digest"),
    [
        ("nginx", "docker.io/library/nginx", None, None),
        ("user/app:v1", "docker.io/user/app", "v1", None),
        ("localhost/app", "localhost/app", None, None),
        ("localhost:5000/app:v1", "localhost:5000/app", "v1", None),
        (f"[::1]:5000/a/b:v1@{DIGEST}", "[::1]:5000/a/b", "v1", DIGEST),
        (f"edge.local/models/digits@{DIGEST}", "edge.local/models/digits", None, DIGEST),
    ],
)
def test_names(text: str, repository: str, tag: str | None, digest: str | None) -> None:
    """Port, tag and digest are told apart."""
    assert images.parse(text) == images.Image(repository, tag, digest)


@pytest.mark.parametrize(
    "text",
    ["", " ", "é/x", "A/b", "a b", f"a@{DIGEST}@{DIGEST}", "a@sha256:12", "a@", "-x.y/b", "x" * 2000, "a\n"],
)
def test_names_refused(text: str) -> None:
    """What names no image is refused."""
    with pytest.raises(images.ImageError):
        images.parse(text)


PIECES = st.sampled_from(
    [
        "edge.local",
        "localhost",
        "[::1]",
        "a",
        "B",
        "é",
        "/",
        ":",
        "@",
        "5000",
        "v1",
        "-",
        "..",
        "__",
        DIGEST,
        " ",
    ]
)


@given(st.text() | st.lists(PIECES, max_size=9).map("".join))
def test_one_grammar(text: str) -> None:
    """Any text is a name or is refused, and the expression for the API server says the same."""
    first, slash, _ = text.partition("/")
    has_host = slash and (set(".:") & set(first) or first == "localhost")
    whole = text if has_host else f"docker.io/{'' if slash else 'library/'}{text}"
    matches = re.fullmatch(images.NAME, whole, re.ASCII) is not None and len(whole) <= images.LONGEST
    is_name = False
    with contextlib.suppress(images.ImageError):
        is_name = bool(images.parse(text))
    assert is_name == matches


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        (f"edge.local/app@{DIGEST}", []),
        (f"edge.local/app:v1@{DIGEST}", []),
        ("edge.local/app:v1", ["which names no digest"]),
        ("edge.local/app", ["which names no digest"]),
        (
            f"edge.local/app:latest@{DIGEST}",
            [f"write the version's tag, or edge.local/app@{DIGEST} without a tag"],
        ),
        ("edge.local/app:latest", ["which names no digest", "or edge.local/app@sha256:… without a tag"]),
        (None, ["is missing"]),
        (3, ["is 3, not a string"]),
        ("No Image", ["is not an image name"]),
        (Unknown(), ["is not yet known"]),
    ],
)
@pytest.mark.parametrize("group", ["containers", "initContainers", "ephemeralContainers"])
def test_digest(image: Any, expected: list[str], group: str) -> None:
    """An image without a digest, or with the tag latest, is refused in every list of containers."""
    found = [finding.text() for finding in naming.check_digest(pod(image, group), Settings())]
    assert len(found) == len(expected)
    for text, part in zip(found, expected, strict=True):
        assert f"spec.{group}[0].image" in text
        assert part in text


@pytest.mark.parametrize(
    ("image", "is_allowed"),
    [
        ("edge.local/app", True),
        ("registry.example:5000/team/app", True),
        ("registry.example:5000/team2/app", False),
        ("registry.example:5000/team", False),
        ("registry.example/team/app", False),
        ("edge.local.evil.example/app", False),
        ("nginx", False),
    ],
)
def test_registry(image: str, is_allowed: bool) -> None:
    """A registry's name is a whole name, and what lies beside an allowed path is refused."""
    found = [finding.text() for finding in naming.check_registry(pod(image), REGISTRIES)]
    assert (
        found == []
        if is_allowed
        else "from a registry that is not allowed. Fix: use one of edge.local" in found[0]
    )


@pytest.mark.parametrize("registry", ["", "edge.local/", "https://edge.local", "a b", "edge.local/*"])
def test_malformed_registries(registry: str) -> None:
    """What is no registry is named."""
    with pytest.raises(ConfigError, match=r"image-registry\.registries: .* is neither a host nor a host and"):
        load("image-registry", naming.RegistrySettings, "", {"registries": [registry]})
