"""Rules about images' names: `image-digest` and `image-registry`."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import Field, field_validator

from policies import cel, images
from policies.config import Settings
from policies.images import Image
from policies.pods import Container, containers
from policies.rules import (
    Admission,
    Finding,
    Resource,
    Rule,
    Validation,
    is_kubernetes,
    not_yet_known,
    unreadable,
)
from policies.values import Unknown

_REGISTRY = re.compile(images.REGISTRY, re.ASCII)
# variables.images are whole names, each with its host.
_IS_NAME = Validation(
    f"variables.images.all(i, size(i) <= {images.LONGEST} && i.matches({cel.text(f'^{images.NAME}$')}))",
    "an image is not named registry/path:tag@sha256:digest",
)


class RegistrySettings(Settings):
    """Where images may come from."""

    registries: tuple[str, ...] = Field(
        min_length=1,
        description="Registries that images may come from: a host, or a host and the start of a path.",
    )

    @field_validator("registries")
    @classmethod
    def _are_registries(cls, values: tuple[str, ...]) -> tuple[str, ...]:
        for value in values:
            if not _REGISTRY.fullmatch(value):
                raise ValueError(f"{value!r} is neither a host nor a host and the start of a path")
        return values


@dataclass(frozen=True)
class Named:
    """An image that a container names.

    Args:
        text: the name as written.
        image: the name, split.
        path: the field that holds it.
        container: the container's name.
    """

    text: str
    image: Image
    path: str
    container: str

    def finding(self, found: str, fix: str) -> Finding:
        """Return a finding about it; `found` follows the name."""
        return Finding(self.path, f"is {self.text}, {found}", fix, self.container)


def named(resource: Resource) -> Iterator[Named | Finding]:
    """Yield every container's image, or the finding that there is none to look at."""
    for part in containers(resource.type, resource.inputs):
        if not isinstance(part, Container):
            yield unreadable(part)
            continue
        value, path = part.fields.get("image"), f"{part.path}.image"
        if isinstance(value, Unknown):
            yield not_yet_known(path, part.name)
        elif not isinstance(value, str):
            found = "is missing" if value is None else f"is {value!r}, not a string"
            yield Finding(path, found, "name the image by digest", part.name)
        else:
            try:
                yield Named(value, images.parse(value), path, part.name)
            except images.ImageError as error:
                fix = "write registry/path:tag@sha256:digest"
                yield Finding(path, f"is invalid: {error}", fix, part.name)


def check_digest(resource: Resource, settings: Settings) -> Iterator[Finding]:
    """Every image is named by the digest of its content, so that what runs is what was checked.

    A tag may stand before the digest for people to read; whoever pulls the image goes by the digest alone.
    The tag `latest` is refused there too: it says nothing about what the digest is of.

    Good:
        ```yaml
        apiVersion: v1
        kind: Pod
        metadata: {name: app, namespace: default}
        spec:
          containers:
            - name: app
              image: edge.local/app:v1@sha256:5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef
        ```

    Bad:
        ```yaml
        apiVersion: v1
        kind: Pod
        metadata: {name: app, namespace: default}
        spec:
          containers:
            - name: app
              image: edge.local/app:v1
        ```
    """
    for each in named(resource):
        if isinstance(each, Finding):
            yield each
            continue
        tag, digest = each.image.tag, each.image.digest
        if digest is None:
            yield each.finding(
                "which names no digest, so what runs can change after it was checked",
                f"write {each.text}@sha256:…, the digest that `crane digest {each.text}` or the build prints",
            )
        if tag == "latest":
            bare = each.text.replace(":latest", "", 1)
            yield each.finding(
                "whose tag latest does not say which version it is",
                f"write the version's tag, or {bare if digest else bare + '@sha256:…'} without a tag",
            )


def digest_admission(settings: Settings) -> Admission:
    """The rule in CEL."""
    by_digest = cel.text(f"@{images.DIGEST}$")
    return Admission(
        ("pods",),
        [
            _IS_NAME,
            Validation(f"variables.images.all(i, i.matches({by_digest}))", "an image is not named by digest"),
            Validation(
                f"variables.images.all(i, !i.matches({cel.text(':latest(@|$)')}))",
                "an image has the tag latest",
            ),
        ],
    )


def check_registry(resource: Resource, settings: RegistrySettings) -> Iterator[Finding]:
    """Every image comes from a registry that this environment allows.

    A name without a host is docker.io's, as containerd reads it. Where a registry is given with the start of
    a path, what lies beside that path is refused.

    Good:
        ```yaml
        apiVersion: v1
        kind: Pod
        metadata: {name: app, namespace: default}
        spec:
          containers:
            - name: app
              image: edge.local/app@sha256:5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef
        ```

    Bad:
        ```yaml
        apiVersion: v1
        kind: Pod
        metadata: {name: app, namespace: default}
        spec:
          containers:
            - name: app
              image: nginx@sha256:5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef
        ```
    """
    for each in named(resource):
        if isinstance(each, Finding):
            yield each
        elif not any(each.image.comes_from(registry) for registry in settings.registries):
            yield each.finding(
                "from a registry that is not allowed",
                f"use one of {', '.join(settings.registries)}, or add it to image-registry.registries",
            )


def registry_admission(settings: RegistrySettings) -> Admission:
    """The rule in CEL."""
    starts = cel.texts(f"{registry}/" for registry in settings.registries)
    return Admission(
        ("pods",),
        [
            _IS_NAME,
            Validation(
                f"variables.images.all(i, {starts}.exists(r, i.startsWith(r)))",
                f"an image comes from a registry other than {', '.join(settings.registries)}",
            ),
        ],
    )


RULES: Sequence[Rule[Any]] = (
    Rule(
        id="image-digest",
        description="Every image is named by digest, and no tag is latest.",
        settings=Settings,
        severity="high",
        check=check_digest,
        applies=is_kubernetes,
        admission=digest_admission,
    ),
    Rule(
        id="image-registry",
        description="Every image comes from an allowed registry.",
        settings=RegistrySettings,
        severity="high",
        check=check_registry,
        applies=is_kubernetes,
        admission=registry_admission,
    ),
)
