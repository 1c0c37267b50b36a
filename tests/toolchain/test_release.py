"""Vendors' releases, from an https server on loopback: taken, pinned, refused, or built instead."""

from __future__ import annotations

import functools
import hashlib
import http.server
import json
import shutil
import ssl
import subprocess
import tarfile
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import ValidationError

from toolchain import build, manifest, release
from toolchain.build import BuildError, fetch, provide
from toolchain.manifest import BuildRoot, Part
from toolchain.release import Release, Unavailable

ROOT = BuildRoot(suite="none", packages=[])


@pytest.fixture
def vendor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Path, str]]:
    """A folder that is served by https with a certificate that this process trusts; its address."""
    folder = tmp_path / "vendor"
    folder.mkdir()
    made = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=vendor"]
    made += ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", "vendor.key", "-out", "vendor.crt"]
    subprocess.run(made, cwd=tmp_path, check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "vendor.crt", tmp_path / "vendor.key")
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(folder))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "vendor.crt"))
    monkeypatch.setattr(urllib.request, "_opener", None)  # the trusted certificates are read once
    monkeypatch.setattr(manifest, "CACHE", tmp_path / "cache")
    monkeypatch.setattr(manifest, "MODE", "auto")
    monkeypatch.setattr(build, "MODE", "auto")
    monkeypatch.setattr(release, "LOCK", tmp_path / "releases.lock")
    yield folder, f"https://127.0.0.1:{server.server_port}"
    server.shutdown()


@pytest.fixture
def part(vendor: tuple[Path, str]) -> Part:
    """crane as a vendor publishes it: an archive and a list of sums; and a script as a plain file."""
    folder, address = vendor
    crane = shutil.which("crane")
    assert crane, "no crane on PATH: run `make setup` and `. ./env.sh`"
    with tarfile.open(folder / "tools%2Bv1.tar.gz", "w:gz") as archive:
        archive.add(Path(crane).resolve(), "bin/crane")
        archive.add(__file__, "not-wanted")
    (folder / "tools%2Bv1.tar.gz").rename(folder / "tools+v1.tar.gz")
    (folder / "install.sh").write_text("#!/bin/sh\necho installed\n")
    lines = [f"{_sum(file)}  {file.name}" for file in sorted(folder.iterdir())]
    (folder / "sums.txt").write_text("\n".join(["# sums", *lines]) + "\n")
    (folder / "install.sh.sha256").write_text(_sum(folder / "install.sh"))
    return Part(
        name="signing",
        version="1",
        source="",
        lock="go.sum",
        release=[
            Release(
                url=f"{address}/tools%2Bv1.tar.gz",
                sums=f"{address}/sums.txt",
                files={"bin/crane": "bin/crane"},
            ),
            Release(
                url=f"{address}/install.sh", sums=f"{address}/install.sh.sha256", files={".": "install.sh"}
            ),
        ],
    )


def _sum(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def test_taken_and_pinned(part: Part, vendor: tuple[Path, str], tmp_path: Path) -> None:
    """The programs run, only what is wanted is kept, the sums are locked; a second time fetches nothing."""
    provide(ROOT, part)
    assert part.found == part.release_key
    kept = {str(file.relative_to(part.output)) for file in part.output.rglob("*") if file.is_file()}
    assert kept == {"bin/crane", "install.sh"}
    assert subprocess.run([part.output / "bin/crane", "version"], check=True, capture_output=True).stdout
    assert subprocess.check_output([part.output / "install.sh"]) == b"installed\n"
    locked = json.loads((tmp_path / "releases.lock").read_text())
    assert locked == {
        item.url: _sum(vendor[0] / Path(item.url).name.replace("%2B", "+")) for item in part.release
    }
    shutil.rmtree(vendor[0])
    provide(ROOT, part)


def test_another_file_of_the_same_name_is_refused(
    part: Part, vendor: tuple[Path, str], tmp_path: Path
) -> None:
    """Also where the vendor's own list has changed with it: the lock holds."""
    provide(ROOT, part)
    shutil.rmtree(tmp_path / "cache")
    (vendor[0] / "install.sh").write_text("#!/bin/sh\necho bad\n")
    (vendor[0] / "install.sh.sha256").write_text(_sum(vendor[0] / "install.sh"))
    with pytest.raises(BuildError, match=r"install\.sh: sha256 found [0-9a-f]{64}, wanted [0-9a-f]{64}"):
        provide(ROOT, part)
    assert part.found is None
    assert not list((tmp_path / "cache").rglob(".download"))


def test_damaged_file_is_refused(part: Part, vendor: tuple[Path, str]) -> None:
    with (vendor[0] / "tools+v1.tar.gz").open("ab") as file:
        file.write(b"x")
    with pytest.raises(BuildError, match="sha256 found"):
        provide(ROOT, part)
    assert part.found is None


def test_what_has_no_sum_or_lacks_a_member_is_not_used(part: Part, vendor: tuple[Path, str]) -> None:
    other = part.release[0].model_copy(update={"files": {"bin/cosign": "bin/cosign"}})
    with pytest.raises(Unavailable, match="has no file bin/cosign"):
        fetch(part.model_copy(update={"release": [other]}))
    (vendor[0] / "install.sh.sha256").write_text("no sums\n")
    with pytest.raises(Unavailable, match=r"has no sha256 of install\.sh"):
        fetch(part)
    assert part.found is None


def test_what_cannot_be_reached_is_built_or_said(
    part: Part, vendor: tuple[Path, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """auto builds and says why, vendor fails and says what to do, build asks no server at all."""
    built: list[str] = []
    monkeypatch.setattr(build, "build", lambda root, part: built.append(part.name))
    (vendor[0] / "install.sh").unlink()
    provide(ROOT, part)
    assert built == ["signing"]
    said = " ".join(capsys.readouterr().out.split())
    assert "install.sh: File not found); building it" in said
    monkeypatch.setattr(build, "MODE", "vendor")
    with pytest.raises(BuildError, match="EDGE_PARTS=auto builds what cannot be fetched"):
        provide(ROOT, part)
    monkeypatch.setattr(build, "MODE", "build")
    monkeypatch.setattr(release, "_open", None)
    provide(ROOT, part)
    assert built == ["signing"] * 2
    monkeypatch.setattr(build, "MODE", "vendro")
    with pytest.raises(BuildError, match="EDGE_PARTS=vendro: auto, vendor or build"):
        provide(ROOT, part)


def test_only_https() -> None:
    with pytest.raises(ValidationError, match="url"):
        Release(url="http://127.0.0.1/x", sums="https://127.0.0.1/y", files={})


def test_manifest_names_every_file_that_a_build_makes() -> None:
    """A part that the vendor's files stand in for has the same programs, plugins and artifacts."""
    for part in manifest.load()[1]:
        given = {path for item in part.release for path in item.files.values()}
        wanted = {f"bin/{name}" for name in part.programs} | set(part.artifacts.values())
        wanted |= {f"bin/pulumi-resource-{name}" for name in part.plugins}
        assert not part.release or wanted <= given, part.name
