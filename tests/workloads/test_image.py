"""The archive that hosts import, its signature, and the build that makes them."""

from __future__ import annotations

import hashlib
import io
import json
import subprocess
import sys
import tarfile
import time
from pathlib import Path
from typing import Any

import pytest

from policies.trust import Key, Trust
from policies.verification import Problem, Question, verify
from tests.workloads.world import Built
from toolchain.artifacts import sha256
from toolchain.build import BuildError
from toolchain.manifest import ARTIFACTS, REPO, STATE
from workloads import signing
from workloads.image import archive, image, layer

NAME = "edge.local/models/test:v1"


def read(path: Path) -> dict[str, bytes]:
    """The files of a tar."""
    with tarfile.open(path) as tar:
        return {entry.name: tar.extractfile(entry).read() for entry in tar if entry.isfile()}  # type: ignore[union-attr]


def build() -> str:
    result = subprocess.run(
        [sys.executable, "-m", "workloads", "build"], cwd=REPO, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


@pytest.fixture(scope="module")
def files() -> dict[str, bytes]:
    build()
    return read(ARTIFACTS / "digits.oci.tar")


def blob(files: dict[str, bytes], descriptor: dict[str, Any]) -> bytes:
    """A blob whose size and digest are what its descriptor says."""
    content = files[f"blobs/{descriptor['digest'].replace(':', '/')}"]
    assert len(content) == descriptor["size"]
    assert f"sha256:{hashlib.sha256(content).hexdigest()}" == descriptor["digest"]
    return content


def test_both_names_lead_to_one_manifest(files: dict[str, bytes]) -> None:
    assert json.loads(files["oci-layout"]) == {"imageLayoutVersion": "1.0.0"}
    first, second = json.loads(files["index.json"])["manifests"]
    digest = first["digest"]
    assert second["digest"] == digest
    assert [entry["annotations"] for entry in (first, second)] == [
        {"io.containerd.image.name": "edge.local/models/digits:v1"},
        {"io.containerd.image.name": f"edge.local/models/digits@{digest}"},
    ]
    assert "platform" not in first
    described = json.loads((ARTIFACTS / "digits.json").read_text())
    assert described["image"] == f"edge.local/models/digits:v1@{digest}"
    assert 32 <= int(described["memory"].removesuffix("Mi")) <= 128


def test_every_blob_is_what_its_descriptor_says(files: dict[str, bytes], built: Built) -> None:
    manifest = json.loads(blob(files, json.loads(files["index.json"])["manifests"][0]))
    config = json.loads(blob(files, manifest["config"]))
    assert (config["os"], config["architecture"]) == ("wasip1", "wasm")
    assert config["config"]["Entrypoint"] == ["/server.wasm"]
    assert "MODEL_PATH=/models/digits/model.onnx" in config["config"]["Env"]
    assert config["rootfs"]["diff_ids"] == [entry["digest"] for entry in manifest["layers"]]
    assert {entry["mediaType"] for entry in manifest["layers"]} == {"application/vnd.oci.image.layer.v1.tar"}
    contents: dict[str, bytes] = {}
    for entry in manifest["layers"]:
        with tarfile.open(fileobj=io.BytesIO(blob(files, entry))) as tar:
            for member in tar:
                assert (member.mtime, member.uid, member.gid) == (0, 0, 0)
                assert member.mode == (0o755 if member.isdir() else 0o644)
                if member.isfile():
                    contents[member.name] = tar.extractfile(member).read()  # type: ignore[union-attr]
    assert contents == {
        "server.wasm": built.module.read_bytes(),
        "models/digits/model.onnx": built.model.read_bytes(),
    }
    assert len(files) == 2 + 2 + len(manifest["layers"])


def test_the_same_content_gives_the_same_archive(tmp_path: Path) -> None:
    for name in ("first", "second"):
        digest, blobs = image([layer({"a/b.txt": b"b", "c": b""})], ["/c"], {"B": "2", "A": "1"})
        archive(NAME, digest, blobs, tmp_path / name)
        time.sleep(1.1)
    assert sha256(tmp_path / "first") == sha256(tmp_path / "second")


def test_a_second_build_changes_nothing_and_is_quick(files: dict[str, bytes]) -> None:
    kept = [
        *(ARTIFACTS / "digits-signed").rglob("*.json"),
        STATE / "cosign.key",
        ARTIFACTS / "cosign.pub",
        ARTIFACTS / "digits.oci.tar",
    ]
    before = [(path, path.stat().st_mtime_ns, sha256(path)) for path in kept]
    start = time.monotonic()
    output = build()
    assert time.monotonic() - start < 3
    assert "signature: unchanged" in output
    assert [(path, path.stat().st_mtime_ns, sha256(path)) for path in kept] == before
    recorded = json.loads((ARTIFACTS / "manifest.json").read_text())["artifacts"]["digits"]
    assert recorded == {
        "version": "v1",
        "source": "digits.oci.tar",
        "sha256": sha256(ARTIFACTS / "digits.oci.tar"),
    }


def test_the_policy_pack_accepts_the_signature(files: dict[str, bytes]) -> None:
    digest = json.loads(files["index.json"])["manifests"][0]["digest"]

    def ask(key: Path) -> Problem | None:
        trust = Trust((Key(key),), (ARTIFACTS / "digits-signed",), timeout=30)
        return verify(Question("edge.local/models/digits", digest, trust))

    assert ask(ARTIFACTS / "cosign.pub") is None
    assert (STATE / "cosign.key").stat().st_mode & 0o777 == 0o600
    refused = ask(REPO / "tests/policy/example.pub")
    assert refused is not None
    assert "does not verify" in refused.found


@pytest.fixture
def own_keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Keys and passphrase of the test's own."""
    monkeypatch.setattr(signing, "KEY", tmp_path / "cosign.key")
    monkeypatch.setattr(signing, "PUBLIC_KEY", tmp_path / "artifacts.pub")
    monkeypatch.setattr(signing, "PASSPHRASE", tmp_path / "passphrase")
    (tmp_path / "passphrase").write_text("first\n")
    return tmp_path


def test_signing_again_after_a_change(own_keys: Path) -> None:
    digest, blobs = image([layer({"a": b"1"})], ["/a"], {})
    layout = own_keys / "signed"
    assert signing.sign(NAME, digest, blobs, layout)
    assert not signing.sign(NAME, digest, blobs, layout)
    changed, blobs = image([layer({"a": b"2"})], ["/a"], {})
    assert signing.sign(NAME, changed, blobs, layout)
    (own_keys / "cosign.key").unlink()
    assert signing.sign(NAME, changed, blobs, layout)


def test_keys_that_cannot_be_used_are_named(own_keys: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    signing.make_key()
    (own_keys / "passphrase").write_text("second\n")
    with pytest.raises(BuildError, match=r"has another passphrase than .*passphrase: restore it"):
        signing.make_key()
    (own_keys / "passphrase").unlink()
    with pytest.raises(BuildError, match=r"passphrase is missing, .* run `\. \./env\.sh`"):
        signing.make_key()
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setattr(signing, "STATE", own_keys)
    with pytest.raises(BuildError, match="cosign is missing: run `make setup`"):
        signing.make_key()
