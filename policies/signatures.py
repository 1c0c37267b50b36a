"""Rule `signed-images`: nothing runs that a trusted key did not sign, and by digest alone."""

from collections.abc import Iterator

from pydantic import Field

from policies import cosign, images
from policies.config import Settings, resolve
from policies.pods import Container, containers
from policies.rules import Finding, Resource, Rule, is_kubernetes, not_yet_known, unreadable
from policies.values import Unknown


class SignatureSettings(Settings):
    """Whom to trust, and where signatures are found."""

    keys: tuple[str, ...] = Field(
        min_length=1, description="Files of cosign public keys; a signature by any of them is enough."
    )
    layouts: tuple[str, ...] = Field(
        description="Folders written by `cosign save`, where signatures are found with no registry (air gap)."
    )
    registries: tuple[str, ...] = Field(
        min_length=1,
        description="Registries images may come from: a host, or a host and the start of a path.",
    )
    timeoutSeconds: float = Field(
        gt=0,
        le=600,
        description="Longest wait for one signature, in seconds; after that the image is refused.",
    )


def check(resource: Resource, settings: SignatureSettings) -> Iterator[Finding]:
    """Check that every image is named by digest, comes from an allowed registry and bears a signature that
    cosign verifies with a trusted key, from a local layout or from the image's registry.
    """
    for part in containers(resource.type, resource.inputs):
        if not isinstance(part, Container):
            yield unreadable(part)
            continue
        value, path = part.fields.get("image"), f"{part.path}.image"
        if isinstance(value, Unknown):
            yield not_yet_known(path, part.name)
        elif refusal := _refusal(value, settings):
            yield Finding(path, *refusal, container=part.name)


def _refusal(value: object, settings: SignatureSettings) -> tuple[str, str] | None:
    if value is None or not isinstance(value, str):
        return ("is missing" if value is None else f"is {value!r}, not a string"), "name the image by digest"
    try:
        image = images.parse(value)
    except images.ImageError as error:
        return f"is invalid: {error}", "write registry/path:tag@sha256:digest"
    if image.digest is None:
        return (
            f"is {value}, which names no digest, so what runs can change after it was checked",
            f"write {value}@sha256:…, the digest that `crane digest {value}` or the build prints",
        )
    if not any(image.comes_from(registry) for registry in settings.registries):
        return (
            f"is {value}, from a registry that is not allowed",
            f"use one of {', '.join(settings.registries)}, or add it to signed-images.registries",
        )
    trust = cosign.Trust(
        tuple(resolve(key) for key in settings.keys),
        tuple(resolve(layout) for layout in settings.layouts),
        settings.timeoutSeconds,
    )
    problem = cosign.verify(image.repository, image.digest, trust)
    return None if problem is None else (f"is {value}, {problem.found}", problem.fix)


RULE: Rule[SignatureSettings] = Rule(
    id="signed-images",
    description="Every image is signed by somebody this environment trusts.",
    settings=SignatureSettings,
    severity="critical",
    check=check,
    applies=is_kubernetes,
    outside="CEL reaches no registry and has no cryptography. The digest that `image-digest` demands is what "
    "Pulumi verified, and `image-registry` keeps other registries out.",
)
