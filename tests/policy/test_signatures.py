"""The rule `signed-images` with the real cosign and a real registry: whose signature counts, what it says."""

import base64
import contextlib
import json
import re
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from policies import layouts, signatures, verification
from policies.config import ConfigError
from policies.rules import Resource
from policies.signatures import SignatureSettings
from tests.policy.world import BUNDLE, Images, run

DIGEST = "sha256:" + "a" * 64
KEY = str(Path(__file__).parent / "example.pub")


@pytest.fixture(autouse=True)
def _nothing_remembered() -> None:
    verification.forget()


def pod(*names: Any) -> Resource:
    """A pod whose containers have these images."""
    containers = [{"name": f"c{index}", "image": name} for index, name in enumerate(names)]
    return Resource("kubernetes:core/v1:Pod", {"spec": {"containers": containers}})


def says(settings: dict[str, Any], *names: Any) -> list[str]:
    """What the rule says of images."""
    checked = signatures.check(pod(*names), SignatureSettings.model_validate(settings))
    return [finding.text() for finding in checked]


def of(images: Images, **changes: Any) -> dict[str, Any]:
    """The rule's settings for the images of the tests."""
    settings: dict[str, Any] = images.settings(**changes)["signed-images"]
    return settings


def key(images: Images, name: str, **more: str) -> dict[str, str]:
    """A trusted key of the tests' images."""
    return {"file": str(images.folder / f"{name}.pub"), **more}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("signed", None),
        ("offline", None),
        ("bundle", None),
        ("offline-bundle", None),
        ("wasm", None),
        ("unsigned", r"which is not signed: registry 127\.0\.0\.1:\d+ holds no signature for it"),
        (
            "other-key",
            r"does not verify with .*trusted\.pub or .*revoked\.pub: no matching signatures: invalid sig",
        ),
        (
            "tampered",
            r"does not verify with .*trusted\.pub or .*revoked\.pub: no matching signatures: invalid sig",
        ),
        (
            "moved-tag",
            r"not signed: .*, but one for sha256:\w{64}, so a tag was moved after the signing\. Fix: name",
        ),
        (
            "expired-key",
            r"is by the key .*expired\.pub, which expired on 2020-01-31\. Fix: .*keys\.1\.notAfter",
        ),
        (
            "revoked-key",
            r"is by the key .*revoked\.pub, which is revoked: a laptop was lost\. Fix: look into",
        ),
        ("registry-down", r"but registry 127\.0\.0\.1:1 cannot be reached \(.*connection refused\)"),
        ("tag-only", r"names no digest, so there is nothing to verify a signature for"),
        ("empty", "image is invalid: is empty"),
        ("malformed", "is not an image name"),
    ],
)
def test_verdicts(images: Images, name: str, expected: str | None) -> None:
    """Every state of being signed has its own verdict and words."""
    found = says(of(images), images.names[name])
    assert bool(found) == bool(expected), found
    assert expected is None or re.search(expected, found[0]), found


@pytest.mark.parametrize("order", [("trusted", "other"), ("other", "trusted")])
def test_any_key_is_enough(images: Images, order: tuple[str, str]) -> None:
    """Of several keys one has to have signed, in any order."""
    keys = [key(images, name) for name in order]
    assert not says(of(images, keys=keys), images.names["signed"], images.names["other-key"])


def test_days(images: Images) -> None:
    """A key counts from its first day; one that does not count takes nothing from one that does."""
    early = [key(images, "trusted", notBefore="2999-01-01")]
    (text,) = says(of(images, keys=early), images.names["signed"])
    assert re.search(r"trusted\.pub, which is not valid before 2999-01-01\. Fix: .*keys\.0\.notBefore", text)
    assert not says(of(images, keys=[*early, key(images, "trusted")]), images.names["signed"])
    (text,) = says(of(images, keys=early), images.names["unsigned"])
    assert "which is not signed" in text


@pytest.fixture(scope="module")
def annotated(images: Images) -> str:
    """An image whose signature says something."""
    name = images.push("annotated")
    images.sign(name, "-a", "env=prod", "-a", "team=a")
    return name


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ({"env": "prod"}, None),
        ({"env": "prod", "team": "a"}, None),
        (
            {"env": "dev"},
            r'does not say what .*annotations wants: it says {"env": "prod"}\. Fix: .*-a env=dev',
        ),
        ({"env": "prod", "ticket": "a=b,c"}, r'it says {"env": "prod"}\. Fix: .*-a env=prod -a ticket=a=b,c'),
    ],
)
def test_annotations(images: Images, annotated: str, wanted: dict[str, str], expected: str | None) -> None:
    """A signature has to say all that is wanted, and the report says what it does say."""
    found = says(of(images, annotations=wanted), annotated)
    assert bool(found) == bool(expected), found
    assert expected is None or re.search(expected, found[0])


@pytest.mark.parametrize("name", ["bundle", "offline-bundle"])
def test_a_bundle_has_no_annotations(images: Images, name: str) -> None:
    """cosign 2.6.5 says that it checked annotations of a bundle, and did not; the rule refuses it."""
    (text,) = says(of(images, annotations={"env": "prod"}), images.names[name])
    assert "it is a Sigstore bundle, which bears none" in text


def test_another_statement_is_no_signature(images: Images, tmp_path: Path) -> None:
    """A bill of materials by a trusted key is no signature, though `cosign verify` takes it for one."""
    name = images.push("attested")
    (tmp_path / "sbom").write_text("{}")
    attest = ["cosign", "attest", "-y", "--key=trusted.key", "--tlog-upload=false", BUNDLE, "--type=spdxjson"]
    run(*attest, f"--predicate={tmp_path / 'sbom'}", name, cwd=images.folder, COSIGN_PASSWORD="")
    (text,) = says(of(images), name)
    assert re.search(
        r"holds no signature but other statements .*trusted\.pub \(found https://spdx\.dev", text
    )
    local = images.save_bundles(name, "attested")
    (text,) = says(of(images, layouts=[str(images.folder / "attested")]), local)
    assert re.search(r"holds no signature but other statements .*invalid predicate type, expected", text)


@pytest.mark.parametrize(
    ("source", "tag"), [("signed", "sha256-{}.sig"), ("bundle", "sha256-{}")], ids=["classic", "bundle"]
)
def test_a_signature_of_another_image(
    images: Images, monkeypatch: pytest.MonkeyPatch, source: str, tag: str
) -> None:
    """A good signature beside another image is refused, whatever the environment tells cosign."""
    name = images.push(f"borrowed-{source}")
    (repository, theirs), (own, ours) = (text.split(":v1@sha256:") for text in (images.names[source], name))
    run("crane", "copy", f"{repository}:{tag.format(theirs)}", f"{own}:{tag.format(ours)}", cwd=images.folder)
    monkeypatch.setenv("COSIGN_CHECK_CLAIMS", "false")
    (text,) = says(of(images, keys=[key(images, "trusted")]), name)
    assert "whose signature does not verify with" in text


def test_a_bundle_in_a_layout_by_another_key(images: Images) -> None:
    """A bundle in a layout is refused as one in a registry is, and the registry is not asked."""
    (text,) = says(of(images, keys=[key(images, "other")]), images.names["offline-bundle"])
    assert "whose signature does not verify with" in text
    assert "accepted signatures do not match" in text


def test_a_tampered_bundle(images: Images, tmp_path: Path) -> None:
    """A bundle in a layout whose signature was changed is refused."""
    shutil.copytree(images.folder / "saved-bundle", tmp_path / "layout")
    digest = images.names["offline-bundle"].split("@")[1]
    layout = layouts.read(tmp_path / "layout")
    assert layout is not None
    (file,) = layout.bundles[digest]
    bundle = json.loads(file.read_text())
    (signature,) = bundle["dsseEnvelope"]["signatures"]
    changed = bytearray(base64.b64decode(signature["sig"]))
    changed[-1] ^= 1
    signature["sig"] = base64.b64encode(changed).decode()
    file.write_text(json.dumps(bundle))
    (text,) = says(of(images, layouts=[str(tmp_path / "layout")]), images.names["offline-bundle"])
    assert "whose signature does not verify with" in text


def test_a_layout_with_another_image_under_the_digest(images: Images, tmp_path: Path) -> None:
    """A layout that gives a signed image the digest of an unsigned one is refused."""
    layout = tmp_path / "layout"
    shutil.copytree(images.folder / "saved", layout)
    signed, unsigned = (images.names[name].split("@sha256:")[1] for name in ("offline", "unsigned"))
    index = (layout / "index.json").read_text()
    assert signed in index
    (layout / "index.json").write_text(index.replace(signed, unsigned))
    shutil.copy(layout / "blobs" / "sha256" / signed, layout / "blobs" / "sha256" / unsigned)
    (text,) = says(of(images, layouts=[str(layout)]), images.names["unsigned"])
    assert re.search(f"layout .* holds no signature but other statements .* for sha256:{signed}", text)


def test_a_layout_that_cannot_be_read(images: Images, tmp_path: Path) -> None:
    """A layout that is there and no layout refuses the image; one that is not there is passed over."""
    (tmp_path / "index.json").write_text("{")
    (text,) = says(of(images, layouts=[str(tmp_path)]), images.names["signed"])
    assert re.search(rf"but the layout {tmp_path} cannot be read \(it is no OCI layout", text)
    assert not says(of(images, layouts=[str(tmp_path / "none")]), images.names["signed"])


def test_an_index_of_images(images: Images) -> None:
    """An index for several platforms is verified by its own digest."""
    index = f"{images.registry}/models/index:v1"
    run("crane", "index", "append", "-m", images.names["unsigned"], "-t", index, cwd=images.folder)
    name = images.by_digest(index)
    images.sign(name)
    assert not says(of(images), name)
    assert not says(of(images, layouts=[str(images.folder / "index")]), images.save(name, "index"))


def test_a_wasm_artifact_offline(images: Images) -> None:
    """A wasm artifact is saved with its signature and verified from the layout like an image."""
    name = images.save(images.names["wasm"], "saved-wasm")
    assert not says(of(images, layouts=[str(images.folder / "saved-wasm")]), name)


@contextlib.contextmanager
def silent() -> Iterator[tuple[str, list[socket.socket]]]:
    """A server that takes connections and never answers: its address, and the connections."""
    taken: list[socket.socket] = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def accept() -> None:
            with contextlib.suppress(OSError):
                while True:
                    taken.append(server.accept()[0])

        threading.Thread(target=accept, daemon=True).start()
        yield f"127.0.0.1:{server.getsockname()[1]}", taken
        server.shutdown(socket.SHUT_RDWR)
    for connection in taken:
        connection.close()


def test_a_silent_registry_is_asked_once() -> None:
    """The first image waits for the time limit; those after it are refused at once, with the reason."""
    settings = {"keys": [{"file": KEY}, {"file": KEY, "revoked": "lost"}], "timeoutSeconds": 1}
    with silent() as (address, taken):
        start = time.monotonic()
        (text,) = says(settings, f"{address}/one@{DIGEST}")
        assert "cannot be reached (no answer within 1 s), so its signature was not checked" in text
        assert 1 <= time.monotonic() - start < 2, "no second wait for the second key"
        asked, start = len(taken), time.monotonic()
        (text,) = says(settings, f"{address}/two@{DIGEST}")
        assert "cannot be reached (it did not answer before: no answer within 1 s)" in text
        assert time.monotonic() - start < 0.1
        assert len(taken) == asked


def test_images_are_verified_at_the_same_time() -> None:
    """Eight registries that do not answer cost one time limit, not eight."""
    settings = {"keys": [{"file": KEY}], "timeoutSeconds": 2}
    with contextlib.ExitStack() as stack:
        addresses = [stack.enter_context(silent())[0] for _ in range(verification.WORKERS)]
        start = time.monotonic()
        found = says(settings, *(f"{address}/app@{DIGEST}" for address in addresses))
        assert len(found) == verification.WORKERS
        assert time.monotonic() - start < 5


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The commands that cosign was run with."""
    commands: list[Any] = []
    original = subprocess.run

    def counted(command: Any, **options: Any) -> Any:
        commands.append(command)
        return original(command, **options)

    monkeypatch.setattr(subprocess, "run", counted)
    return commands


def test_an_answer_is_remembered(images: Images, runs: list[Any]) -> None:
    """A pod of a thousand containers with one image costs one run; other terms are another question."""
    signed = images.names["signed"]
    assert not says(of(images), *[signed] * 1000)
    assert not says(of(images), signed.replace(":v1@", "@"), signed)
    assert len(runs) == 1
    assert says(of(images, annotations={"a": "b"}), signed)
    assert len(runs) > 1


def test_prefetch(images: Images, runs: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """What was fetched for many resources is at hand for each, good and bad; cosign is not run again."""
    names = [
        images.names[name] for name in ("signed", "wasm", "offline", "unsigned", "tag-only", "malformed")
    ]
    settings = SignatureSettings.model_validate(of(images))
    other = Resource("aws:ec2:Instance", {"spec": 1})
    signatures.prefetch([other, *(pod(name) for name in names)], settings)
    assert {command[0] for command in runs} == {"cosign", "crane"}
    monkeypatch.setenv("PATH", "")
    found = [[finding.text() for finding in signatures.check(pod(name), settings)] for name in names]
    assert [len(texts) for texts in found] == [0, 0, 0, 1, 1, 1]
    assert "which is not signed" in found[3][0]


def test_prefetch_says_what_cannot_be_read() -> None:
    """A key that is not there is an error where there is something to verify, and a finding in the engine."""
    stated = {"keys": [{"file": "/no/such.pub"}]}
    settings = SignatureSettings.model_validate(stated)
    signatures.prefetch([pod("app:v1"), pod(None)], settings)
    with pytest.raises(
        ConfigError, match=r"signed-images\.keys\.0\.file: the public key /no/such\.pub cannot be"
    ):
        signatures.prefetch([pod(f"edge.local/app@{DIGEST}")], settings)
    (text,) = says(stated, f"edge.local/app@{DIGEST}")
    assert "whose signature was not checked: signed-images.keys.0.file: the public key" in text


def test_a_key_that_cosign_cannot_use(tmp_path: Path, images: Images) -> None:
    """What only cosign sees is wrong with a key refuses the image in cosign's words."""
    (tmp_path / "key").write_text("-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n")
    (text,) = says(of(images, keys=[{"file": str(tmp_path / "key")}]), images.names["signed"])
    assert re.search(r"but cosign could not check its signature in registry .*loading public key", text)


@pytest.mark.parametrize(
    ("program", "expected"),
    [
        (None, "but cosign is not on PATH, so its signature was not checked"),
        ("nonsense", "could not check its signature in registry edge.local: it could not be started"),
        ("#!/bin/sh\nexit 0", "could not check .*: its output is not the one of cosign 2.6"),
        ("#!/bin/sh\necho '[]'", "holds no signature but other statements"),
        ("#!/bin/sh\nexit 3", "could not check .*: it said nothing"),
    ],
)
def test_another_program(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, program: str | None, expected: str
) -> None:
    """No cosign, or something else in its place, lets no image pass."""
    if program is not None:
        (tmp_path / "cosign").write_text(program)
        (tmp_path / "cosign").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    (text,) = says({"keys": [{"file": KEY}]}, f"edge.local/app@{DIGEST}")
    assert re.search(expected, text)
