"""Hosts that shall have a GPU: each fault is named before any host is changed, and a whole one passes.

The hosts share this machine's kernel, so what the checks look at is put over the PCI bus and /proc/driver by
bind mounts inside the host, and the driver's programs are scripts.
"""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from tests.integration.local_site import CHECKOUT, LocalSite
from tests.integration.test_faults import hosts, refused, untouched

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="local hosts need root: run the tests with sudo")

FIRST, SECOND = "0000:41:00.0", "0000:c1:00.0"
NAMED = f"GPU {FIRST} (10de:2330), {SECOND} (10de:2330): "
MISMATCH = "Failed to initialize NVML: Driver/library version mismatch\nNVML library version: 550.120"


def smi(driver: str, *addresses: str) -> str:
    """What nvidia-smi lists."""
    return "\n".join(
        f"0000{address.upper()}, NVIDIA H100 80GB HBM3, 81559, {driver}" for address in addresses
    )


@dataclass(frozen=True)
class Fake:
    """A host with two GPUs.

    Attributes:
        holders: the kernel driver of each GPU by PCI address; empty: none has it.
        loaded: version of the module nvidia in the kernel; empty: not loaded.
        smi: what nvidia-smi prints; None: it is not installed.
        smi_status: how it exits.
        nodes: device nodes in /dev.
        toolkit: version of the container toolkit; empty: not installed.
    """

    holders: dict[str, str] = field(default_factory=lambda: {FIRST: "nvidia", SECOND: "nvidia"})
    loaded: str = "550.90.07"
    smi: str | None = smi("550.90.07", FIRST, SECOND)
    smi_status: int = 0
    nodes: tuple[str, ...] = ("nvidia0", "nvidia1", "nvidiactl", "nvidia-uvm")
    toolkit: str = "1.17.8"

    def script(self) -> str:
        """Shell text that makes the host so."""
        lines = ["mkdir -p /run/fake/pci /run/fake/driver"]
        for address, holder in self.holders.items():
            device = f"/run/fake/pci/{address}"
            lines.append(f"mkdir {device}; echo 0x10de >{device}/vendor; echo 0x030200 >{device}/class")
            lines.append(f"echo 0x2330 >{device}/device")
            if holder:
                lines.append(f"ln -s /sys/bus/pci/drivers/{holder} {device}/driver")
        if self.loaded:
            says = f"NVRM version: NVIDIA UNIX x86_64 Kernel Module  {self.loaded}  Release Build"
            lines.append(f"mkdir /run/fake/driver/nvidia; echo '{says}' >/run/fake/driver/nvidia/version")
        if self.smi is not None:
            lines.append(_program("nvidia-smi", self.smi, self.smi_status))
        if self.toolkit:
            lines.append(_program("nvidia-ctk", f"NVIDIA Container Toolkit CLI version {self.toolkit}"))
        lines += [f"mknod /dev/{node} c 1 3" for node in self.nodes]
        lines.append("mount --bind /run/fake/pci /sys/bus/pci/devices")
        lines.append("mount --bind /run/fake/driver /proc/driver")
        return "\n".join(lines)


NOTHING = (
    "for place in /sys/bus/pci/devices /proc/driver; do umount -q $place || true; done;"
    " rm -rf /run/fake /dev/nvidia* /usr/bin/nvidia-smi /usr/bin/nvidia-ctk"
)


def _program(name: str, says: str, status: int = 0) -> str:
    text = f"#!/bin/sh\ncat <<'END'\n{says}\nEND\nexit {status}\n"
    return f"printf %s {shlex.quote(text)} >/usr/bin/{name}; chmod 0755 /usr/bin/{name}"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalSite]:
    made = LocalSite(tmp_path_factory.mktemp("gpu"), "gpuh", "10.216.12")
    try:
        made.create()
        yield made
    finally:
        made.localhosts("delete")


def configure(site: LocalSite, **changes: Any) -> None:
    """The agent shall have a GPU."""
    site.configure(services=[])
    wanted = hosts(site)
    wanted[1]["gpu"] = True
    site.configure(**({"services": []} | changes), hosts=wanted)


GOOD = Fake()
SERVICE = {
    "name": "large",
    "image": "registry.example.com/large@sha256:" + "07e5c3a1" * 8,
    "gpu": {"memory": "96Gi"},
}
FAULTS: dict[str, tuple[Fake | None, dict[str, Any], list[str]]] = {
    "no-gpu": (None, {}, ["no NVIDIA GPU found on the PCI bus", "or set gpu: false"]),
    "no-driver-no-toolkit": (
        Fake({FIRST: "", SECOND: ""}, loaded="", smi=None, nodes=(), toolkit=""),
        {},
        [
            NAMED + "no NVIDIA driver found, want 550.54.14 or newer (CUDA 12.4, nvidia.cudaVersion)",
            NAMED + "NVIDIA container toolkit (nvidia-ctk) not found, want 1.17.8 or newer: install",
            "2 fault(s) above; nothing was changed on the host",
        ],
    ),
    "old-driver": (
        replace(GOOD, loaded="535.183.01", smi=smi("535.183.01", FIRST, SECOND)),
        {},
        [NAMED + "driver 535.183.01 found, want 550.54.14 or newer (CUDA 12.4, nvidia.cudaVersion)"],
    ),
    "older-than-minimum-driver": (
        GOOD,
        {"nvidia": {"minimumDriver": "560.35.03"}},
        [NAMED + "driver 550.90.07 found, want 560.35.03 or newer (nvidia.minimumDriver)"],
    ),
    "module-not-loaded": (
        Fake({FIRST: "", SECOND: ""}, loaded="", nodes=()),
        {},
        [NAMED + "kernel module nvidia not loaded", "run 'modprobe nvidia' and read dmesg"],
    ),
    "version-mismatch": (
        replace(GOOD, smi=MISMATCH, smi_status=18),
        {},
        [
            NAMED + "kernel module nvidia is 550.90.07, nvidia-smi says 'Failed to initialize NVML: ",
            "Driver/library version mismatch NVML library version: 550.120', want one version of both",
        ],
    ),
    "smi-fails": (
        replace(GOOD, smi="Unable to determine the device handle: Unknown Error", smi_status=1),
        {},
        [NAMED + "nvidia-smi fails with 'Unable to determine the device handle: Unknown Error'"],
    ),
    "no-smi": (
        replace(GOOD, smi=None),
        {},
        [NAMED + "nvidia-smi not found, want it beside driver 550.90.07"],
    ),
    "no-device-nodes": (
        replace(GOOD, nodes=("nvidia0", "nvidiactl")),
        {},
        [NAMED + "/dev/nvidia-uvm /dev/nvidia1 not found, want these device nodes: run 'nvidia-modprobe"],
    ),
    "held-by-nouveau": (
        replace(GOOD, holders={FIRST: "nouveau", SECOND: ""}),
        {},
        [
            f"GPU {FIRST} (10de:2330): held by driver nouveau, want nvidia: blacklist nouveau",
            f"GPU {SECOND} (10de:2330): not claimed by driver 550.90.07, want it claimed: read dmesg",
        ],
    ),
    "fallen-off-the-bus": (
        replace(GOOD, smi=smi("550.90.07", FIRST)),
        {},
        [f"GPU {SECOND} (10de:2330): on the PCI bus, nvidia-smi does not list it, want it listed"],
    ),
    "old-toolkit": (
        replace(GOOD, toolkit="1.17.3"),
        {},
        [NAMED + "NVIDIA container toolkit 1.17.3 found, want 1.17.8 or newer: update"],
    ),
    "little-memory": (
        GOOD,
        {
            "services": [SERVICE],
            "nvidia": {"enabled": True, "devicePluginImage": SERVICE["image"]},
        },
        [f"GPU {FIRST} (10de:2330): 81559 MiB memory found, want 98304 MiB: lower services.gpu.memory"],
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_named_and_no_host_is_changed(site: LocalSite, name: str) -> None:
    fake, changes, messages = FAULTS[name]
    agent = site.names[1]
    site.ssh(agent, NOTHING)
    if fake:
        site.ssh(agent, fake.script())
    before = {host: site.traces(host) for host in site.names}
    configure(site, **changes)
    text = refused(site, limit_s=60)
    assert f"error: host {agent}: " in text
    for message in messages:
        assert message in text
    assert "nothing was changed on the host" in text
    untouched(site, before)


def test_a_whole_host_passes_and_says_what_it_has(site: LocalSite) -> None:
    agent = site.names[1]
    site.ssh(agent, NOTHING)
    site.ssh(agent, GOOD.script())
    before = {host: site.traces(host) for host in site.names}
    configure(site)
    done = site.pulumi("up", "--yes", "--skip-preview")
    assert done.returncode == 0, done.stdout + done.stderr
    facts = json.loads(site.output("gpus")[agent])
    assert (facts["driver"], facts["toolkit"]) == ("550.90.07", "1.17.8")
    assert facts["gpus"] == [
        {"address": address, "id": "10de:2330", "name": "NVIDIA H100 80GB HBM3", "memoryMiB": 81559}
        for address in (FIRST, SECOND)
    ]
    again = site.pulumi("up", "--yes", "--skip-preview")
    assert "unchanged" in again.stdout
    assert " created" not in again.stdout
    gone = site.pulumi("destroy", "--yes", "--skip-preview")
    assert gone.returncode == 0, gone.stdout + gone.stderr
    untouched(site, before)


def package(folder: Path, name: str, control: str = "", program: str = "", says: str = "") -> Path:
    """Builds a Debian package that holds one program."""
    root = folder / name
    (root / "DEBIAN").mkdir(parents=True)
    text = f"Package: {name}\nVersion: 1.0\nArchitecture: all\nMaintainer: test\nDescription: test\n{control}"
    (root / "DEBIAN/control").write_text(text)
    if program:
        (root / "usr/bin").mkdir(parents=True)
        (root / "usr/bin" / program).write_text(f"#!/bin/sh\ncat <<'END'\n{says}\nEND\n")
        (root / "usr/bin" / program).chmod(0o755)
    file = folder / f"{name}.deb"
    command = ["dpkg-deb", "--root-owner-group", "--build", str(root), str(file)]
    subprocess.run(command, check=True, capture_output=True)
    return file


@pytest.fixture(scope="module")
def packages(site: LocalSite) -> dict[str, Any]:
    """A manifest that has packages beside the checkout's artifacts, as the setting `artifacts`."""
    folder = site.folder / "packages"
    built = [
        package(folder, "fake-smi", program="nvidia-smi", says=smi("550.90.07", FIRST, SECOND)),
        package(folder, "fake-toolkit", program="nvidia-ctk", says="CLI version 1.17.8"),
        package(folder, "fake-greedy", control="Depends: nowhere-to-be-had\n"),
        package(folder, "tar"),
    ]
    content = json.loads((CHECKOUT / ".artifacts/manifest.json").read_text())
    for entry in content["artifacts"].values():
        entry["source"] = str(CHECKOUT / ".artifacts" / entry["source"])
    for file in built:
        sha256 = hashlib.sha256(file.read_bytes()).hexdigest()
        content["artifacts"][file.stem] = {"version": "1.0", "source": str(file), "sha256": sha256}
    manifest = folder / "manifest.json"
    manifest.write_text(json.dumps(content))
    return {"manifest": str(manifest)}


PACKAGE_FAULTS = {
    "fake-greedy": "dpkg refused fake-greedy, see above, and they were taken off again: add what",
    "tar": "nvidia.packages has 1.0: remove it from the host or from nvidia.packages",
    "fake-toolkit": "nvidia-smi not found, want it beside driver 550.90.07",
}


@pytest.mark.parametrize("name", PACKAGE_FAULTS)
def test_packages_that_do_not_do_are_named_and_taken_off(
    site: LocalSite, packages: dict[str, Any], name: str
) -> None:
    """K3s is not installed on the host then, and destroy leaves nothing of them."""
    agent = site.names[1]
    site.ssh(agent, NOTHING)
    site.ssh(agent, replace(GOOD, smi=None, toolkit="").script())
    before = {host: site.traces(host) for host in site.names}
    configure(site, artifacts=packages, nvidia={"packages": [name]})
    text = refused(site, limit_s=120)
    assert f"error: host {agent}: " in text
    assert PACKAGE_FAULTS[name] in text
    # WasmEdge goes its own way beside the packages; K3s waits for both.
    assert "k3s" not in site.ssh(agent, "ls /usr/local/bin").split()
    gone = site.pulumi("destroy", "--yes", "--skip-preview")
    assert gone.returncode == 0, gone.stdout + gone.stderr
    untouched(site, before)


def test_packages_make_the_host_whole_and_go_with_it(site: LocalSite, packages: dict[str, Any]) -> None:
    agent = site.names[1]
    site.ssh(agent, NOTHING)
    site.ssh(agent, replace(GOOD, smi=None, toolkit="").script())
    before = {host: site.traces(host) for host in site.names}
    configure(site, artifacts=packages, nvidia={"packages": ["fake-smi", "fake-toolkit"]})
    done = site.pulumi("up", "--yes", "--skip-preview")
    assert done.returncode == 0, done.stdout + done.stderr
    facts = json.loads(site.output("gpus")[agent])
    assert (facts["driver"], facts["toolkit"], len(facts["gpus"])) == ("550.90.07", "1.17.8", 2)
    again = site.pulumi("up", "--yes", "--skip-preview")
    assert " created" not in again.stdout
    configure(site, artifacts=packages, nvidia={"packages": ["fake-smi"]})
    assert NAMED + "NVIDIA container toolkit (nvidia-ctk) not found" in refused(site)
    assert "fake-toolkit" not in site.ssh(agent, "dpkg-query -W -f '${Package}\\n'")
    gone = site.pulumi("destroy", "--yes", "--skip-preview")
    assert gone.returncode == 0, gone.stdout + gone.stderr
    untouched(site, before)
    assert "fake" not in site.ssh(agent, "dpkg-query -W -f '${Package}\n'")
