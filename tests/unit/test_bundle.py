"""Bundles: the same contents give the same bytes, and whatever was changed afterwards is refused by name."""

from __future__ import annotations

import hashlib
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from bundle.contents import BundleError, Contents, collect
from bundle.make import make
from bundle.use import check
from bundle.wheels import requirements
from stacks.manifest import Entry, UnsignedError, check_signature, load_manifest
from stacks.settings import ArtifactSettings, SettingsError
from workloads.signing import PUBLIC_KEY


def _contents(folder: Path) -> Contents:
    folder.mkdir()
    for name in ("k3s", "pulumi"):
        (folder / name).write_text(f"the bytes of {name}")
    sum_of = hashlib.sha256(b"the bytes of k3s").hexdigest()
    entry = Entry(version="v1.30.0+k3s1", source="artifacts/k3s", sha256=sum_of, size=16)
    files = {"artifacts/k3s": folder / "k3s", "bin/pulumi": folder / "pulumi"}
    return Contents("amd64", {"k3s": entry}, files)


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    made = tmp_path / "bundle"
    make(_contents(tmp_path / "here"), made, lambda _: None)
    return made


def _settings(bundle: Path, key: Path = PUBLIC_KEY) -> ArtifactSettings:
    return ArtifactSettings.model_validate({"manifest": str(bundle / "manifest.json"), "publicKey": str(key)})


def test_same_contents_give_the_same_bytes(tmp_path: Path) -> None:
    made = []
    for number in ("1", "2"):
        contents = _contents(tmp_path / number)
        (tmp_path / number / "k3s").touch()
        make(contents, tmp_path / f"{number}.tar", lambda _: None)
        made.append((tmp_path / f"{number}.tar").read_bytes())
    assert made[0] == made[1]


def test_tar_unpacks_to_the_folder(tmp_path: Path, bundle: Path) -> None:
    make(_contents(tmp_path / "again"), tmp_path / "x.tar", lambda _: None)
    unpacked = tmp_path / "unpacked"
    unpacked.mkdir()
    subprocess.run(["tar", "-xf", tmp_path / "x.tar", "-C", unpacked], check=True)
    subprocess.run(["diff", "-r", bundle, unpacked], check=True)
    assert (unpacked / "bin/pulumi").stat().st_mode & 0o777 == 0o755


def test_whole_bundle_is_good(bundle: Path) -> None:
    assert {each.path: each.problem for each in check(bundle, PUBLIC_KEY)} == {
        "artifacts/k3s": None,
        "bin/pulumi": None,
    }
    check_signature(_settings(bundle), "prod")
    entries, problems = load_manifest(
        str(bundle / "manifest.json"), {"k3s"}, preview=False, architecture="amd64"
    )
    assert problems == []
    assert entries["k3s"].source == str(bundle / "artifacts/k3s")


def _flip(file: Path) -> None:
    """Changes one byte in the middle."""
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda b: _flip(b / "artifacts/k3s"), "artifacts/k3s has sha256"),
        (lambda b: _flip(b / "bin/pulumi"), "bin/pulumi has sha256"),
        (lambda b: (b / "bin/pulumi").write_text(""), "bin/pulumi has 0 bytes, wanted 19"),
        (lambda b: (b / "bin/pulumi").unlink(), "no file"),
        (lambda b: (b / "bin/more").write_text("x"), "bin/more is not in the manifest: remove it"),
        (lambda b: (b / "bin/link").symlink_to("/bin"), "bin/link is not in the manifest: remove it"),
    ],
)
def test_changed_file_is_named(bundle: Path, change: Callable[[Path], object], message: str) -> None:
    change(bundle)
    problems = [each.problem for each in check(bundle, PUBLIC_KEY) if each.problem]
    assert len(problems) == 1
    assert message in problems[0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda b: _flip(b / "manifest.json"), "manifest.json is not what the owner of"),
        (lambda b: _flip(b / "manifest.json.sigstore.json"), "artifacts.manifest"),
        (lambda b: (b / "manifest.json.sigstore.json").unlink(), "no signature"),
    ],
)
def test_changed_manifest_or_signature_is_refused(
    bundle: Path, change: Callable[[Path], object], message: str
) -> None:
    change(bundle)
    for ask in (lambda: list(check(bundle, PUBLIC_KEY)), lambda: check_signature(_settings(bundle), "local")):
        with pytest.raises(SettingsError, match="edge-inference:artifacts") as raised:
            ask()
        assert message in str(raised.value)


def test_another_key_is_refused_with_both_settings_named(bundle: Path) -> None:
    other = Path(__file__).parents[1] / "policy/example.pub"
    with pytest.raises(SettingsError) as raised:
        check_signature(_settings(bundle, other), "local")
    assert f"is not what the owner of {other} signed" in str(raised.value)
    assert "mend edge-inference:artifacts.publicKey" in str(raised.value)


def test_missing_key_is_named(bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(UnsignedError, match=r"artifacts\.publicKey: no file"):
        check_signature(_settings(bundle, tmp_path / "none.pub"), "local")


@pytest.mark.parametrize(("stack", "refused"), [("local", False), ("staging", True), ("prod", True)])
def test_staging_and_prod_need_a_key(bundle: Path, stack: str, refused: bool) -> None:
    settings = ArtifactSettings(manifest=str(bundle / "manifest.json"))
    if not refused:
        check_signature(settings, stack)
        return
    with pytest.raises(UnsignedError, match=f"missing: stack {stack} takes signed manifests only"):
        check_signature(settings, stack)


def test_other_architecture_is_refused(bundle: Path) -> None:
    _, problems = load_manifest(str(bundle / "manifest.json"), {"k3s"}, preview=True, architecture="arm64")
    assert len(problems) == 1
    assert "manifest.json is for amd64, the hosts are arm64" in problems[0]
    assert "edge-inference:artifacts.manifest: " in problems[0]
    assert "mend artifacts.architecture or hosts[].architecture" in problems[0]


def test_folder_with_something_else_stays(tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home/letter").write_text("dear")
    with pytest.raises(BundleError, match="holds something that is not a bundle"):
        make(_contents(tmp_path / "here"), tmp_path / "home", lambda _: None)
    assert (tmp_path / "home/letter").read_text() == "dear"


@pytest.mark.parametrize(
    ("stack", "message"),
    [("none", "--stack none: no file"), ("prod", "artifact k3s: its sha256 is null")],
)
def test_stack_that_cannot_be_bundled(stack: str, message: str) -> None:
    with pytest.raises(BundleError, match=message):
        collect(stack, lambda _: None)


def test_requirements_are_the_operators_alone() -> None:
    names = {line.split("==")[0] for line in requirements().splitlines() if "==" in line}
    assert {"pulumi", "pulumi-kubernetes", "pydantic", "grpcio", "setuptools"} <= names
    assert not names & {"pytest", "onnx", "scikit-learn", "mypy"}
    assert requirements().count("--hash=sha256:") >= len(names)
