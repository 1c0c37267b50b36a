"""Hosts with made-up GPUs, and steps run on them without the engine.

The hosts share this machine's kernel, so what the checks look at is put over the PCI bus and /proc/driver by
bind mounts inside the host, and the driver's programs are scripts.
"""

from __future__ import annotations

import shlex
import subprocess
from dataclasses import dataclass, field, replace
from pathlib import Path

from components.step import step_command, step_input
from stacks.gpu import NvidiaSettings
from tests.integration.local_site import LocalSite

FIRST, SECOND = "0000:41:00.0", "0000:c1:00.0"
NAMED = f"GPU {FIRST} (10de:2330), {SECOND} (10de:2330): "
DRIVER = "550.90.07"
SPEC = "/var/run/cdi/nvidia.yaml"
MODULES = "/lib/modules/$(uname -r)/modules.dep"
NOTHING = (
    f"for place in /sys/bus/pci/devices /proc/driver {MODULES};"
    " do umount -q $place 2>/dev/null || true; done;"
    " rm -rf /run/fake /opt/fake /dev/nvidia* /usr/bin/nvidia-smi /usr/bin/nvidia-ctk"
)


def smi(driver: str, *addresses: str) -> str:
    """What nvidia-smi lists."""
    return "\n".join(
        f"0000{address.upper()}, NVIDIA H100 80GB HBM3, 81559, {driver}" for address in addresses
    )


def says(text: str, status: int = 0) -> str:
    """A program that says something."""
    return f"#!/bin/sh\ncat <<'END'\n{text}\nEND\nexit {status}\n"


def toolkit(version: str, gpus: int = 2, failure: str = "") -> str:
    """A program for nvidia-ctk: the calls and messages of NVIDIA's 1.17.8, run without a GPU.

    Args:
        version: its version.
        gpus: how many GPUs its CDI specification describes.
        failure: why it can't make one.
    """
    generate = f"""
    output=$NVIDIA_CTK_CDI_OUTPUT_FILE_PATH
    for word; do case $word in --output=*) output=${{word#*=}} ;; esac; done
    exec >"$output"
    echo 'kind: nvidia.com/gpu'
    echo 'devices:'
    for gpu in {" ".join(str(number) for number in range(gpus))} all; do echo "- name: \\"$gpu\\""; done
    echo "- hostPath: /usr/lib/libcuda.so.$(cat /opt/fake/driver)"
    """
    if failure:
        line = f'time="2026-01-31T10:00:00Z" level=error msg="{failure}"'
        generate = f"printf '%s\\n' {shlex.quote(line)} >&2; exit 1"
    return f"""#!/bin/sh
case "$1 $2" in
"--version ") echo "NVIDIA Container Toolkit CLI version {version}" ;;
"cdi generate") {generate} ;;
"cdi list") cat /etc/cdi/* /run/cdi/* 2>/dev/null | sed -n 's/^- name: "\\(.*\\)"/nvidia.com\\/gpu=\\1/p' ;;
*) exit 2 ;;
esac
"""


def installed(program: str, text: str) -> str:
    """Shell text that puts a program on a host."""
    return f"printf %s {shlex.quote(text)} >/usr/bin/{program}; chmod 0755 /usr/bin/{program}"


@dataclass(frozen=True)
class Fake:
    """A host with two GPUs.

    Attributes:
        holders: the kernel driver of each GPU by PCI address; empty: none has it.
        loaded: version of the module nvidia in the kernel; empty: not loaded.
        smi: what nvidia-smi prints; None: it is not installed.
        smi_status: how it exits.
        nodes: device nodes in /dev.
        toolkit: the program nvidia-ctk; empty: not installed.
    """

    holders: dict[str, str] = field(default_factory=lambda: {FIRST: "nvidia", SECOND: "nvidia"})
    loaded: str = DRIVER
    smi: str | None = smi(DRIVER, FIRST, SECOND)
    smi_status: int = 0
    nodes: tuple[str, ...] = ("nvidia0", "nvidia1", "nvidiactl", "nvidia-uvm")
    toolkit: str = toolkit("1.17.8")

    def script(self) -> str:
        """Shell text that makes the host so."""
        lines = ["mkdir -p /run/fake/pci /run/fake/driver /opt/fake"]
        for address, holder in self.holders.items():
            device = f"/run/fake/pci/{address}"
            lines.append(f"mkdir {device}; echo 0x10de >{device}/vendor; echo 0x030200 >{device}/class")
            lines.append(f"echo 0x2330 >{device}/device")
            if holder:
                lines.append(f"ln -s /sys/bus/pci/drivers/{holder} {device}/driver")
        if self.loaded:
            line = f"NVRM version: NVIDIA UNIX x86_64 Kernel Module  {self.loaded}  Release Build"
            lines.append(f"mkdir /run/fake/driver/nvidia; echo '{line}' >/run/fake/driver/nvidia/version")
        if self.smi is not None:
            lines.append(installed("nvidia-smi", says(self.smi, self.smi_status)))
        if self.toolkit:
            lines.append(installed("nvidia-ctk", self.toolkit))
        lines += [f"mknod /dev/{node} c 1 3" for node in self.nodes]
        lines.append(f"echo {self.loaded} >/opt/fake/driver; : >/opt/fake/modules.dep")
        lines.append(f"[ -e {MODULES} ] || {{ mkdir -p $(dirname {MODULES}); : >{MODULES}; }}")
        lines.append(f"mount --bind /opt/fake/modules.dep {MODULES}")
        lines.append("mount --bind /run/fake/pci /sys/bus/pci/devices")
        lines.append("mount --bind /run/fake/driver /proc/driver")
        return "\n".join(lines)


def made(fake: Fake | None) -> str:
    """Shell text that gives a host these GPUs, or none."""
    return f"{NOTHING}\n{fake.script() if fake else ''}\n"


def step(
    site: LocalSite,
    host: str,
    script: str,
    action: str = "apply",
    *,
    first: str = "",
    more: str = "",
    **values: str,
) -> subprocess.CompletedProcess[str]:
    """Runs a step on a host as the engine does.

    Args:
        site: the host's site.
        host: its name.
        script: file name in components/scripts.
        action: "apply" or "remove".
        first: shell text that the host runs before the step.
        more: shell text that the step runs after its own.
        values: the step's.
    """
    text = step_input(script, {"HOST": host, "STEP": script, **values}) + more
    return site.on_host(host, first + step_command(script, action), text)


def package(folder: Path, name: str, files: dict[str, str], control: str = "", postinst: str = "") -> Path:
    """Builds a Debian package that holds these files; those in usr/bin are programs."""
    root = folder / name
    (root / "DEBIAN").mkdir(parents=True)
    text = f"Package: {name}\nVersion: 1.0\nArchitecture: all\nMaintainer: test\nDescription: test\n{control}"
    (root / "DEBIAN/control").write_text(text)
    if postinst:
        (root / "DEBIAN/postinst").write_text(f"#!/bin/sh\n{postinst}\n")
        (root / "DEBIAN/postinst").chmod(0o755)
    for path, content in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(content)
        (root / path).chmod(0o755 if path.startswith("usr/bin/") else 0o644)
    file = folder / f"{name}.deb"
    command = ["dpkg-deb", "--root-owner-group", "--build", str(root), str(file)]
    subprocess.run(command, check=True, capture_output=True)
    return file


GOOD = Fake()
BARE = replace(GOOD, smi=None, toolkit="")
WANTED = {
    "MINIMUM_GPUS": "1",
    "MINIMUM_DRIVER": NvidiaSettings().driver[0],
    "DRIVER_FOR": NvidiaSettings().driver[1],
    "MINIMUM_TOOLKIT": NvidiaSettings().minimum_toolkit,
    "MEMORY_MIB": "0",
    "PACKAGES": "",
    "INSTALLED": "",
}
_MISMATCH = "Failed to initialize NVML: Driver/library version mismatch\nNVML library version: 550.120"
FAULTS: dict[str, tuple[Fake | None, dict[str, str], list[str]]] = {
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
    "fewer-gpus-than-said": (
        GOOD,
        {"MINIMUM_GPUS": "3"},
        [NAMED + "2 found on the PCI bus, want 3, as its setting says gpu: 3: seat", "or set gpu: 2"],
    ),
    "fewer-gpus-before-packages": (
        BARE,
        {"MINIMUM_GPUS": "3", "PACKAGES": "before"},
        [NAMED + "2 found on the PCI bus, want 3", "1 fault(s) above"],
    ),
    "old-driver": (
        replace(GOOD, loaded="535.183.01", smi=smi("535.183.01", FIRST, SECOND)),
        {},
        [NAMED + "driver 535.183.01 found, want 550.54.14 or newer (CUDA 12.4, nvidia.cudaVersion)"],
    ),
    "module-not-loaded": (
        Fake({FIRST: "", SECOND: ""}, loaded="", nodes=()),
        {},
        [NAMED + "kernel module nvidia not loaded", "run 'modprobe nvidia' and read dmesg"],
    ),
    "version-mismatch": (
        replace(GOOD, smi=_MISMATCH, smi_status=18),
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
        replace(GOOD, smi=smi(DRIVER, FIRST)),
        {},
        [f"GPU {SECOND} (10de:2330): on the PCI bus, nvidia-smi does not list it, want it listed"],
    ),
    "old-toolkit": (
        replace(GOOD, toolkit=toolkit("1.17.3")),
        {},
        [NAMED + "NVIDIA container toolkit 1.17.3 found, want 1.17.8 or newer: update"],
    ),
}
"""Per fault: the GPUs of the host, what its check asks for beside WANTED, and what it says."""
