"""Keyless signatures under `signed-images`, with an authority and a transparency log of the tests' own."""

import datetime
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from policies import signatures, verification
from policies.rules import Resource
from policies.signatures import SignatureSettings
from tests.policy.keyless import ISSUER, Authority, Credential, Log
from tests.policy.world import BUNDLE, Images, run

MINUTE = datetime.timedelta(minutes=1)
WORKFLOW = "https://ci.example/shop/app/.github/workflows/build.yml@refs/heads/main"
DEVELOPER = "dev@example.org"
KINDS = ("classic", "bundle")


@dataclass
class World:
    """Images signed with certificates.

    Args:
        images: the registry.
        authority: who issued the certificates.
        root: the trusted root that names authority and log.
        names: what was signed → image.
    """

    images: Images
    authority: Authority
    root: Path
    names: dict[str, str] = field(default_factory=dict)

    def sign(self, name: str, credential: Credential, *flags: str) -> None:
        """Push an image and sign it as the owner of a certificate."""
        image = self.images.push(f"keyless-{name}")
        certificate = [f"--certificate={credential.certificate}"]
        certificate += [f"--certificate-chain={self.authority.folder / 'chain.pem'}"]
        command = ["cosign", "sign", "-y", f"--key={credential.key}", *certificate, *flags, image]
        run(*command, cwd=self.images.folder, COSIGN_PASSWORD="")
        self.names[name] = image

    def says(self, name: str, **changes: Any) -> list[str]:
        """What the rule says of an image, where the workflow is trusted unless changes say otherwise."""
        identities = [{"issuer": ISSUER, "subject": WORKFLOW}]
        stated = {"identities": identities, "trustedRoot": str(self.root), "timeoutSeconds": 20, **changes}
        resource = Resource(
            "kubernetes:core/v1:Pod",
            {"spec": {"containers": [{"name": "c", "image": self.names.get(name, name)}]}},
        )
        checked = signatures.check(resource, SignatureSettings.model_validate(stated))
        return [finding.text() for finding in checked]


@pytest.fixture(scope="module")
def world(images: Images, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """Sign images of each kind: logged, by a certificate long expired; and unlogged, by one in force."""
    folder = tmp_path_factory.mktemp("keyless")
    authority = Authority.make(folder / "authority")
    workflow = authority.issue("workflow", f"URI:{WORKFLOW}", -60 * MINUTE)
    developer = authority.issue("developer", f"email:{DEVELOPER}", -MINUTE)
    stranger = Authority.make(folder / "stranger").issue("workflow", f"URI:{WORKFLOW}", -MINUTE)
    with Log.serve(folder / "log") as log, Log.serve(folder / "other-log") as other:
        made = World(images, authority, authority.trusted_root(log))
        for kind in KINDS:
            flags = [BUNDLE] if kind == "bundle" else []
            log.time = other.time = -55 * MINUTE
            made.sign(f"logged-{kind}", workflow, f"--rekor-url={log.address}", *flags)
            made.sign(f"elsewhere-{kind}", workflow, f"--rekor-url={other.address}", *flags)
            log.time = -5 * MINUTE
            made.sign(f"late-{kind}", workflow, f"--rekor-url={log.address}", *flags)
            made.sign(f"unlogged-{kind}", developer, "--tlog-upload=false", *flags)
        made.authority = Authority(folder / "stranger")
        for kind in KINDS:
            flags = [BUNDLE] if kind == "bundle" else []
            made.sign(f"stranger-{kind}", stranger, "--tlog-upload=false", *flags)
        yield made


@pytest.fixture(autouse=True)
def _nothing_remembered() -> None:
    verification.forget()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("identity", "is_trusted"),
    [
        ({"issuer": ISSUER, "subject": WORKFLOW}, True),
        ({"issuer": ISSUER, "subjectRegExp": r"https://ci\.example/shop/.*@refs/heads/main"}, True),
        ({"issuerRegExp": r"https://[a-z]+\.example", "subject": WORKFLOW}, True),
        ({"issuer": ISSUER, "subject": DEVELOPER}, False),
        ({"issuer": "https://login.example.org", "subject": WORKFLOW}, False),
        ({"issuer": ISSUER, "subjectRegExp": "https://ci.example/shop/"}, False),
        ({"issuer": ISSUER, "subjectRegExp": "ci.example/shop/.*|x"}, False),
        ({"issuerRegExp": "login", "subject": WORKFLOW}, False),
    ],
)
def test_identities(world: World, kind: str, identity: dict[str, str], is_trusted: bool) -> None:
    """Issuer and subject are those of the certificate, or an expression matches each from start to end."""
    found = world.says(f"logged-{kind}", identities=[identity])
    assert bool(found) != is_trusted, found
    if found:
        assert re.search(r"whose signature does not verify with .* of .*: no matching", found[0])
        assert WORKFLOW in found[0] or ISSUER in found[0], "it says who did sign"


@pytest.mark.parametrize("kind", KINDS)
def test_any_identity_or_key_is_enough(world: World, kind: str) -> None:
    """Identities and keys stand beside each other."""
    both = [{"issuer": ISSUER, "subject": DEVELOPER}, {"issuer": ISSUER, "subject": WORKFLOW}]
    keys = [{"file": str(world.images.folder / "trusted.pub")}]
    assert not world.says(f"logged-{kind}", identities=both, keys=keys)
    assert not world.says(world.images.names["signed"], identities=both, keys=keys)
    (text,) = world.says(world.images.names["signed"], identities=both, transparencyLog="ignored")
    assert "no certificate found on signature" in text


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("name", "log", "classic", "bundle"),
    [
        ("logged", "required", None, None),
        ("logged", "ignored", "to verify an expired certificate", "leaf certificate verification failed"),
        ("late", "required", "certificate expired before signatures", "integrated time outside certificate"),
        ("elsewhere", "required", "rekor log public key not found", "not enough verified log entries"),
        ("unlogged", "required", "bears no entry of a transparency log", "not enough verified log entries"),
        ("unlogged", "ignored", None, None),
        (
            "stranger",
            "ignored",
            "leaf certificate verification failed",
            "leaf certificate verification failed",
        ),
    ],
)
def test_log_and_certificate(
    world: World, kind: str, name: str, log: str, classic: str | None, bundle: str | None
) -> None:
    """Where the log is required, its entry is verified; where not, the certificate's time is."""
    who = [{"issuer": ISSUER, "subjectRegExp": ".*"}]
    found = world.says(f"{name}-{kind}", identities=who, transparencyLog=log)
    expected = classic if kind == "classic" else bundle
    assert bool(found) == bool(expected), found
    assert expected is None or expected in found[0]


def test_a_certificate_has_to_be_logged_where_there_are_logs(world: World, tmp_path: Path) -> None:
    """A trusted root that names logs of certificates makes cosign want the certificate's timestamp."""
    content = json.loads(world.root.read_text())
    content["ctlogs"] = content["tlogs"]
    (tmp_path / "root.json").write_text(json.dumps(content))
    for kind, reason in (("classic", "embedded SCT"), ("bundle", "signed certificate timestamp")):
        (text,) = world.says(f"logged-{kind}", trustedRoot=str(tmp_path / "root.json"))
        assert reason in text


@pytest.mark.parametrize("kind", KINDS)
def test_offline(world: World, kind: str) -> None:
    """A layout is enough where no registry is; in it too, another identity is refused."""
    save = world.images.save if kind == "classic" else world.images.save_bundles
    name = save(world.names[f"logged-{kind}"], f"keyless-{kind}")
    layouts = [str(world.images.folder / f"keyless-{kind}")]
    assert not world.says(name, layouts=layouts)
    (text,) = world.says(name, layouts=layouts, identities=[{"issuer": ISSUER, "subject": DEVELOPER}])
    assert "whose signature does not verify with" in text
    (text,) = world.says(name)
    assert "but registry edge.invalid cannot be reached" in text
