"""Whom an environment trusts to sign images: the settings, and what the cosign program is given of them."""

import datetime
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

from pydantic import Field, field_validator, model_validator
from pydantic_core import SchemaError, SchemaValidator, core_schema

from policies.config import ConfigError, Part, Settings, resolve

TRUSTED_ROOT = "application/vnd.dev.sigstore.trustedroot"
_LARGEST = 16 << 20


class TrustedKey(Part):
    """A key pair whose signatures count, while it is valid."""

    file: str = Field(min_length=1, description="File of the public key, as `cosign public-key` writes it.")
    notBefore: datetime.date | None = Field(
        default=None, description="First day (UTC) on which its signatures count, for example 2026-01-31."
    )
    notAfter: datetime.date | None = Field(
        default=None, description="Last day (UTC) on which its signatures count."
    )
    revoked: str | None = Field(
        default=None, min_length=1, description="Why nobody should trust it any more; it then counts never."
    )

    @model_validator(mode="after")
    def _has_days(self) -> "TrustedKey":
        if self.notBefore and self.notAfter and self.notAfter < self.notBefore:
            raise ValueError(f"notAfter {self.notAfter} is before notBefore {self.notBefore}")
        return self


class TrustedIdentity(Part):
    """Somebody whom a certificate authority identified when they signed (keyless)."""

    issuer: str | None = Field(
        default=None, min_length=1, description="Who logged the signer in: an OIDC issuer."
    )
    issuerRegExp: str | None = Field(
        default=None, min_length=1, description="Regular expression (RE2) that the whole issuer must match."
    )
    subject: str | None = Field(
        default=None, min_length=1, description="The signer: an address, or a workflow's URI."
    )
    subjectRegExp: str | None = Field(
        default=None, min_length=1, description="Regular expression (RE2) that the whole subject must match."
    )

    @field_validator("issuerRegExp", "subjectRegExp")
    @classmethod
    def _compiles(cls, value: str | None) -> str | None:
        if value is not None:
            try:
                # pydantic's own engine has RE2's syntax, which cosign uses; Python's re has more.
                SchemaValidator(core_schema.str_schema(pattern=value))
            except SchemaError as error:
                raise ValueError(f"is no regular expression: {' '.join(str(error).split())}") from None
        return value

    @model_validator(mode="after")
    def _is_whole(self) -> "TrustedIdentity":
        for name in ("issuer", "subject"):
            if (getattr(self, name) is None) == (getattr(self, f"{name}RegExp") is None):
                raise ValueError(f"needs either {name} or {name}RegExp")
        return self


class SignatureSettings(Settings):
    """Whom to trust, and where signatures are found."""

    keys: tuple[TrustedKey, ...] = Field(
        default=(), description="Key pairs; a signature by any of them is enough."
    )
    identities: tuple[TrustedIdentity, ...] = Field(
        default=(), description="Keyless signers; a signature by any of them is enough."
    )
    trustedRoot: str | None = Field(
        default=None,
        description="File of a Sigstore trusted root (JSON, `cosign trusted-root create`): the certificate"
        " authorities and logs that identities rest on. Where it names certificate logs, a certificate must"
        " be in one.",
    )
    transparencyLog: Literal["required", "ignored"] = Field(
        default="required",
        description="Whether a keyless signature must bear an entry of a log of the trusted root; where"
        " that is ignored, a signature counts only while its certificate is valid.",
    )
    annotations: Mapping[str, str] = Field(
        default={},
        description="What a signature must say (`cosign sign -a key=value`). Sigstore bundles of cosign 2.6"
        " bear no annotations, so they do not count where this is set.",
    )
    layouts: tuple[str, ...] = Field(
        default=(),
        description="OCI layouts where signatures are found with no registry (air gap): folders of `cosign"
        " save`, or copies of an image with its Sigstore bundles.",
    )
    timeoutSeconds: float = Field(
        default=30,
        gt=0,
        le=600,
        description="Longest wait for one image, in seconds; after that it is refused.",
    )

    @model_validator(mode="after")
    def _trusts_somebody(self) -> "SignatureSettings":
        if not self.keys and not self.identities:
            raise ValueError("nobody is trusted: list at least one of keys and identities")
        if self.identities and self.trustedRoot is None:
            raise ValueError("identities need trustedRoot, the file that says which authorities to believe")
        return self


@dataclass(frozen=True)
class Key:
    """A key pair.

    Args:
        file: its public key.
        unfit: why its signatures do not count, such as `expired on 2026-01-31`; empty when they do.
        remedy: what to do then.
    """

    file: Path
    unfit: str = ""
    remedy: str = ""

    def __str__(self) -> str:
        """Return its name for people."""
        return str(self.file)


@dataclass(frozen=True)
class Identity:
    """A keyless signer.

    Args:
        flags: what tells cosign whom to accept.
        text: issuer and subject, for people.
    """

    flags: tuple[str, ...]
    text: str

    def __str__(self) -> str:
        """Return its name for people."""
        return self.text


Signer: TypeAlias = Key | Identity


@dataclass(frozen=True)
class Trust:
    """Whom to trust and where to look, with every file known to be readable.

    Args:
        signers: any one of them is enough; those that do not count come last.
        layouts: folders with signatures.
        timeout: longest wait for one image, in seconds.
        root: the trusted root of identities.
        log_required: whether a keyless signature must be in a transparency log.
        has_certificate_logs: whether the root names logs of certificates.
        annotations: what a signature must say.
    """

    signers: tuple[Signer, ...]
    layouts: tuple[Path, ...]
    timeout: float
    root: Path | None = None
    log_required: bool = True
    has_certificate_logs: bool = False
    annotations: tuple[tuple[str, str], ...] = ()


def load(settings: SignatureSettings, today: datetime.date) -> Trust:
    """Return what the settings mean on a day (UTC).

    Raises:
        ConfigError: a file cannot be read, or holds something else; names the field.
    """
    keys = [_key(key, f"signed-images.keys.{index}", today) for index, key in enumerate(settings.keys)]
    root = None if settings.trustedRoot is None else resolve(settings.trustedRoot)
    content = {} if root is None else _trusted_root(root)
    return Trust(
        signers=(
            *(key for key in keys if not key.unfit),
            *map(_identity, settings.identities),
            *(key for key in keys if key.unfit),
        ),
        layouts=tuple(resolve(layout) for layout in settings.layouts),
        timeout=settings.timeoutSeconds,
        root=root,
        log_required=settings.transparencyLog == "required",
        has_certificate_logs=bool(content.get("ctlogs")),
        annotations=tuple(sorted(settings.annotations.items())),
    )


def _key(key: TrustedKey, field: str, today: datetime.date) -> Key:
    file = resolve(key.file)
    if "BEGIN PUBLIC KEY" not in _read(file, f"{field}.file", "the public key"):
        raise ConfigError(f"{field}.file: {file} holds no PEM public key")
    if key.revoked is not None:
        return Key(
            file,
            f"which is revoked: {key.revoked}",
            "look into the image, then sign it with another trusted key",
        )
    if key.notAfter is not None and today > key.notAfter:
        remedy = f"sign the image with a key that is valid today, or move {field}.notAfter"
        return Key(file, f"which expired on {key.notAfter}", remedy)
    if key.notBefore is not None and today < key.notBefore:
        remedy = f"sign the image with a key that is valid today, or move {field}.notBefore"
        return Key(file, f"which is not valid before {key.notBefore}", remedy)
    return Key(file)


def _identity(identity: TrustedIdentity) -> Identity:
    flags, texts = [], []
    for flag, exact, pattern in (
        ("--certificate-oidc-issuer", identity.issuer, identity.issuerRegExp),
        ("--certificate-identity", identity.subject, identity.subjectRegExp),
    ):
        # cosign takes a match anywhere in the text, so that a URL within another URL would do.
        flags.append(f"{flag}={exact}" if pattern is None else f"{flag}-regexp=^(?:{pattern})$")
        texts.append(exact or f"^{pattern}$")
    return Identity(tuple(flags), f"{texts[1]} of {texts[0]}")


def _trusted_root(file: Path) -> dict[str, Any]:
    field = "signed-images.trustedRoot"
    text = _read(file, field, "the trusted root")
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{field}: {file} is no JSON: {error}") from None
    if not isinstance(content, dict) or not str(content.get("mediaType")).startswith(TRUSTED_ROOT):
        raise ConfigError(
            f"{field}: {file} is no Sigstore trusted root: its mediaType is not {TRUSTED_ROOT}…"
        )
    return content


def _read(file: Path, field: str, what: str) -> str:
    try:
        with file.open(encoding="utf-8") as opened:
            return opened.read(_LARGEST)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise ConfigError(f"{field}: {what} {file} cannot be read ({reason})") from None
