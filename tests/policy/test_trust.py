"""The settings of `signed-images`: what cannot be used is named, and days are counted right."""

import contextlib
import datetime
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies import config, layouts, trust
from policies.config import ConfigError
from policies.trust import Key, SignatureSettings

KEY = str(Path(__file__).parent / "example.pub")
DAY = datetime.date(2027, 1, 31)
ROOT = {"mediaType": "application/vnd.dev.sigstore.trustedroot+json;version=0.1"}
WHO = {"issuer": "https://login.example", "subject": "dev@example.org"}


def settings(**given: Any) -> SignatureSettings:
    """Settings with a key, then changed."""
    return SignatureSettings.model_validate({"keys": [{"file": KEY}], **given})


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"keys": []}, "nobody is trusted: list at least one of keys and identities"),
        ({"keys": ["cosign.pub"]}, r"keys\.0: .*TrustedKey"),
        ({"keys": [{}]}, r"keys\.0\.file: Field required"),
        ({"keys": [{"file": "k", "notAfter": "soon"}]}, r"keys\.0\.notAfter.*found 'soon'"),
        (
            {"keys": [{"file": "k", "notBefore": "2027-02-01", "notAfter": "2027-01-31"}]},
            r"keys\.0: .*notAfter 2027-01-31 is before notBefore 2027-02-01",
        ),
        ({"keys": [{"file": "k", "revoked": ""}]}, r"keys\.0\.revoked"),
        ({"identities": [WHO]}, "identities need trustedRoot"),
        (
            {"identities": [{"issuer": "i"}], "trustedRoot": "r"},
            r"identities\.0: .*either subject or subjectRegExp",
        ),
        (
            {"identities": [WHO | {"issuerRegExp": ".*"}], "trustedRoot": "r"},
            r"identities\.0: .*either issuer or issuerRegExp",
        ),
        (
            {"identities": [{"issuer": "i", "subjectRegExp": "("}], "trustedRoot": "r"},
            r"identities\.0\.subjectRegExp: .*is no regular expression: .*unclosed group.*found '\('",
        ),
        (
            {"identities": [{"issuer": "i", "subjectRegExp": "(?=x)"}], "trustedRoot": "r"},
            r"identities\.0\.subjectRegExp: .*look-around",
        ),
        ({"transparencyLog": "maybe"}, r"transparencyLog: .*'required' or 'ignored'"),
        ({"annotations": {"a": 1}}, r"annotations\.a: .*string"),
        ({"timeoutSeconds": 0}, r"timeoutSeconds: .*greater than 0"),
    ],
)
def test_malformed(given: dict[str, Any], message: str) -> None:
    """What is wrong is named with its field."""
    stated = {"keys": [{"file": KEY}], **given}
    with pytest.raises(ConfigError, match=rf"signed-images.*{message}"):
        config.load("signed-images", SignatureSettings, "", stated)


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("key", None, r"keys\.0\.file: the public key .*/key cannot be read \(No such file or directory\)"),
        ("key", "no key", r"keys\.0\.file: .*/key holds no PEM public key"),
        ("key", "-----BEGIN ENCRYPTED SIGSTORE PRIVATE KEY-----", r"keys\.0\.file: .*/key holds no PEM"),
        ("root", None, r"trustedRoot: the trusted root .*/root cannot be read \(No such file or directory\)"),
        ("root", "{", r"trustedRoot: .*/root is no JSON"),
        ("root", "[]", r"trustedRoot: .*/root is no Sigstore trusted root"),
        ("root", '{"mediaType": "text/plain"}', r"trustedRoot: .*/root is no Sigstore trusted root"),
    ],
)
def test_unusable_files(tmp_path: Path, file: str, content: str | None, message: str) -> None:
    """A key or trusted root that cannot be used is named with its field."""
    (tmp_path / "key").write_text(Path(KEY).read_text())
    (tmp_path / "root").write_text(json.dumps(ROOT))
    if content is None:
        (tmp_path / file).unlink()
    else:
        (tmp_path / file).write_text(content)
    keys, root = [{"file": str(tmp_path / "key")}], str(tmp_path / "root")
    with pytest.raises(ConfigError, match=rf"^signed-images\.{message}"):
        trust.load(settings(keys=keys, identities=[WHO], trustedRoot=root), DAY)


@pytest.mark.parametrize(
    ("days", "unfit"),
    [
        ({}, ""),
        ({"notAfter": "2027-01-31"}, ""),
        ({"notBefore": "2027-01-31"}, ""),
        ({"notAfter": "2027-01-30"}, "which expired on 2027-01-30"),
        ({"notBefore": "2027-02-01"}, "which is not valid before 2027-02-01"),
        ({"notAfter": "2027-01-30", "revoked": "lost"}, "which is revoked: lost"),
    ],
)
def test_days_of_a_key(days: dict[str, str], unfit: str) -> None:
    """First and last day count; a key that does not count is asked for last."""
    terms = trust.load(settings(keys=[{"file": KEY, **days}, {"file": KEY}]), DAY)
    found = [signer.unfit for signer in terms.signers if isinstance(signer, Key)]
    assert found == (["", unfit] if unfit else ["", ""])


def test_expressions_match_the_whole() -> None:
    """cosign looks for a match anywhere; what it is given is bound to start and end."""
    identity = trust.TrustedIdentity(issuer="https://login.example", subjectRegExp="a|b")
    (signer,) = trust._identity(identity).flags[1:]
    assert signer == "--certificate-identity-regexp=^(?:a|b)$"


@pytest.mark.parametrize(
    ("index", "message"),
    [
        ("{", "it is no OCI layout"),
        ("[]", "it is no OCI layout"),
        ('{"manifests": [{}]}', "it is no OCI layout: KeyError.'digest'"),
        ('{"manifests": [{"digest": "sha256:../../../secret"}]}', "is no sha256 digest"),
    ],
)
def test_malformed_layout(tmp_path: Path, index: str, message: str) -> None:
    """A layout that cannot be read is an error that says why."""
    (tmp_path / "index.json").write_text(index)
    with pytest.raises(layouts.LayoutError, match=message):
        layouts.read(tmp_path)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=5), inner, max_size=2),
    max_leaves=5,
)
BLOB = "0" * 64
PARTS = {
    "digest": st.just(f"sha256:{BLOB}") | JSON,
    "mediaType": st.sampled_from(["application/vnd.oci.image.index.v1+json", layouts.BUNDLE]) | JSON,
    "annotations": st.dictionaries(st.just("kind"), JSON) | JSON,
}
ENTRIES = st.lists(st.fixed_dictionaries({}, optional=PARTS) | JSON, max_size=2)
DOCUMENTS = JSON | st.fixed_dictionaries(
    {},
    optional={
        "manifests": ENTRIES | JSON,
        "layers": ENTRIES | JSON,
        "subject": st.fixed_dictionaries(PARTS) | JSON,
    },
)


@given(index=DOCUMENTS, blob=DOCUMENTS)
def test_any_layout_is_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, index: Any, blob: Any
) -> None:
    """No content of a layout makes reading it fail in another way, not even an index within itself."""
    folder = tmp_path_factory.mktemp("layout")
    (folder / "blobs" / "sha256").mkdir(parents=True)
    (folder / "blobs" / "sha256" / BLOB).write_text(json.dumps(blob))
    (folder / "index.json").write_text(json.dumps(index))
    with contextlib.suppress(layouts.LayoutError):
        assert layouts.read(folder) is not None
