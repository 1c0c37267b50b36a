"""Hosts of two architectures: which manifest serves which, and files for the wrong one."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from bundle import contents
from stacks.files import FilesReader
from stacks.manifest import INSTALLED, load_manifest, wanted_artifacts
from stacks.settings import SettingsError
from stacks.sites import parse_sites

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJr0"
AMD64, ARM64, RISCV = 62, 183, 243
"""e_machine of elf.h."""


def program(machine: int) -> bytes:
    """A 64-bit ELF program's first bytes, and something more."""
    return (
        b"\x7fELF\x02\x01\x01"
        + bytes(9)
        + (2).to_bytes(2, "little")
        + machine.to_bytes(2, "little")
        + b"rest"
    )


def manifest(folder: Path, architecture: str, **files: bytes) -> str:
    """Writes a manifest and its files."""
    folder.mkdir(exist_ok=True)
    artifacts = {}
    for name in INSTALLED:
        content = files.get(name.replace("-", "_"), f"{name} for {architecture}".encode())
        artifacts[name] = content
    artifacts["model"] = files.get("model", b"the same for all")
    for name, content in artifacts.items():
        (folder / name).write_bytes(content)
    entries = {
        name: {"version": "v1", "source": name, "sha256": hashlib.sha256(content).hexdigest()}
        for name, content in artifacts.items()
    }
    file = folder / "manifest.json"
    file.write_text(json.dumps({"architecture": architecture, "artifacts": entries}))
    return str(file)


def stack(artifacts: dict[str, Any], *architectures: str | None) -> dict[str, Any]:
    """A server and agents with these architectures."""
    hosts = [
        {"name": f"h{number}", "role": "agent" if number else "server", "address": "h", "hostKey": KEY}
        | ({"architecture": architecture} if architecture else {})
        for number, architecture in enumerate(architectures)
    ]
    service = {"name": "s", "imageFile": "s.json", "archive": "model"}
    return {"artifacts": artifacts, "hosts": hosts, "services": [service]}


def both(folder: Path, **arm64: bytes) -> dict[str, Any]:
    """Settings with manifests for both."""
    first = manifest(folder / "amd64", "amd64", k3s=program(AMD64))
    second = manifest(folder / "arm64", "arm64", **({"k3s": program(ARM64)} | arm64))
    return {"manifest": first, "manifests": {"arm64": second}}


def read(values: dict[str, Any], *, preview: bool = False) -> tuple[Any, list[str]]:
    (found,) = parse_sites(values)
    return FilesReader("test", preview=preview).read(found)


def test_each_architecture_has_its_own_files(tmp_path: Path) -> None:
    files, problems = read(stack(both(tmp_path), None, "arm64"))
    assert problems == []
    for architecture in ("amd64", "arm64"):
        for name in INSTALLED:
            assert files[architecture][name].source == str(tmp_path / architecture / name)
        assert files[architecture]["model"].source == str(tmp_path / "amd64/model")
    assert files["amd64"]["k3s"].sha256 != files["arm64"]["k3s"].sha256


def test_a_manifest_that_no_host_needs_is_not_read(tmp_path: Path) -> None:
    artifacts = both(tmp_path) | {"manifests": {"arm64": str(tmp_path / "none.json")}}
    assert list(read(stack(artifacts, None))[0]) == ["amd64"]
    _, problems = read(stack(artifacts, None, "arm64"))
    assert len(problems) == 1
    assert f"edge-inference:artifacts.manifests.arm64: no file {tmp_path}/none.json" in problems[0]


def test_a_site_may_change_the_architecture(tmp_path: Path) -> None:
    """What sites share names both manifests, and one site has hosts of the other kind."""
    values = stack(both(tmp_path), None)
    hosts = values.pop("hosts")
    sites = {"north": {"hosts": hosts}, "south": {"hosts": [hosts[0] | {"name": "s0"}]}}
    values["sites"] = sites | {"south": sites["south"] | {"artifacts": {"architecture": "arm64"}}}
    assert [list(wanted_artifacts(found.settings)) for found in parse_sites(values)] == [["amd64"], ["arm64"]]
    for found in parse_sites(values):
        _, problems = FilesReader("test", preview=False).read(found)
        assert problems == []


@pytest.mark.parametrize(
    ("artifacts", "architectures", "message"),
    [
        (
            {},
            (None, "arm64"),
            "edge-inference: hosts[1].architecture: h1 is arm64, found manifests for amd64",
        ),
        ({}, (None, "arm64"), "add artifacts.manifests: {arm64: PATH}"),
        ({}, (None, "mips"), "edge-inference:hosts[1].architecture: found 'mips'"),
        ({"manifests": {"mips": "m.json"}}, (None,), "edge-inference:artifacts.manifests.mips"),
        ({"manifests": "m.json"}, (None,), "edge-inference:artifacts.manifests: found 'm.json'"),
        ({"manifests": {"arm64": 7}}, (None,), "edge-inference:artifacts.manifests.arm64: found 7"),
    ],
)
def test_wrong_settings(artifacts: Any, architectures: tuple[str | None, ...], message: str) -> None:
    with pytest.raises(SettingsError) as raised:
        parse_sites(stack({"manifest": "m.json"} | artifacts, *architectures))
    assert message in str(raised.value)


@pytest.mark.parametrize(("machine", "made_for"), [(AMD64, "amd64"), (RISCV, "another processor")])
def test_a_program_for_another_processor_is_refused(tmp_path: Path, machine: int, made_for: str) -> None:
    _, problems = read(stack(both(tmp_path, k3s=program(machine)), None, "arm64"))
    assert problems == [
        f"edge-inference:artifacts.manifests.arm64: {tmp_path}/arm64/manifest.json: artifact k3s: {tmp_path}/"
        f"arm64/k3s is a program for {made_for}, the hosts are arm64: put theirs into the manifest"
    ]


def test_this_projects_k3s_is_no_program_for_arm64() -> None:
    """The real one, in a manifest that says nothing of architectures."""
    found = load_manifest(".artifacts/manifest.json", {"k3s"}, preview=False, architecture="arm64")
    assert ".artifacts/k3s is a program for amd64, the hosts are arm64" in "".join(found[1])
    assert load_manifest(".artifacts/manifest.json", {"k3s"}, preview=False, architecture="amd64")[1] == []


def test_a_manifest_for_another_architecture_is_refused(tmp_path: Path) -> None:
    wrong = manifest(tmp_path / "amd64", "amd64")
    _, problems = read(stack({"manifest": wrong, "manifests": {"arm64": wrong}}, None, "arm64"))
    assert "edge-inference:artifacts.manifests.arm64: " in problems[0]
    assert "is for amd64, the hosts are arm64" in problems[0]


def test_a_service_has_one_image(tmp_path: Path) -> None:
    _, problems = read(stack(both(tmp_path, model=b"another"), None, "arm64"))
    assert len(problems) == 1
    assert problems[0].startswith(
        "edge-inference:services[0].archive: model is another file in the manifest for"
    )


@pytest.mark.parametrize(
    ("architecture", "chosen"),
    [
        ("amd64", ("amd64", "a.json")),
        ("arm64", ("arm64", "b.json")),
        ("", "its hosts are amd64 and arm64: make a bundle of each, by --architecture"),
    ],
)
def test_a_bundle_is_for_one_architecture(
    monkeypatch: pytest.MonkeyPatch, architecture: str, chosen: Any
) -> None:
    values = stack({"manifest": "a.json", "manifests": {"arm64": "b.json"}}, None, "arm64")
    monkeypatch.setattr(contents, "read_stack", lambda _: parse_sites(values))
    if isinstance(chosen, str):
        with pytest.raises(contents.BundleError, match=chosen):
            contents._chosen("test", "", architecture)
    else:
        assert contents._chosen("test", "", architecture)[:2] == chosen
