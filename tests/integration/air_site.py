"""A site that was carried in as a bundle: its operator's machine and its hosts have no way out."""

from __future__ import annotations

import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from localhosts import disk, network
from localhosts.fleet import load_all
from tests.integration.local_site import CHECKOUT, STACK, LocalSite
from toolchain.manifest import source_files


@dataclass(frozen=True)
class AirSite(LocalSite):
    """A copy of the project in a network namespace where there is nothing but the hosts.

    The operator's machine is that namespace, this checkout's files, and what is in the bundle: neither
    this machine's Pulumi and Python packages nor its caches are used.
    """

    @property
    def bundle(self) -> Path:
        """The bundle, unpacked in the project."""
        return self.project / ".bundle"

    @property
    def scratch(self) -> Path:
        """The operator's folder for temporary files."""
        return self.folder / "tmp"

    @property
    def environment(self) -> dict[str, str]:
        """A login shell's; env.sh adds the project's."""
        return {
            "PATH": "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin",
            "HOME": str(self.folder / "home"),
            "EDGE_CACHE": str(self.folder / "cache"),
            "TMPDIR": str(self.scratch),
        }

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Runs a command in a shell with the project's environment."""
        return super().run("sh", "-c", '. ./env.sh && exec "$@"', "sh", *command)

    def connect(self) -> None:
        """Makes the hosts, and lets the operator's namespace on their bridge."""
        self.localhosts("create")
        subprocess.run(["ip", "-n", self.within[-1], "link", "set", "lo", "up"], check=True)
        address = f"{self.subnet}.2/24"
        subprocess.run(["ip", "-n", self.within[-1], "addr", "add", address, "dev", "br0"], check=True)

    def cut(self) -> None:
        """Takes this machine's leg off the bridge: the hosts' only other end."""
        subprocess.run(["ip", "link", "set", f"lh-{self.prefix}", "down"], check=True)

    def make_project(self) -> None:
        """Copies the project's files, as a clone has them, and nothing that was built."""
        for file in source_files(CHECKOUT):
            target = self.project / file.relative_to(CHECKOUT)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, target)
        for folder in (self.folder / "home", self.scratch):
            folder.mkdir()
        (self.project / "config").symlink_to("stacks")

    def install(self, tar: Path, key: Path) -> None:
        """What an operator types once the bundle was carried in."""
        self.bundle.mkdir()
        shutil.copy(key, self.project / "stacks/bundle.pub")
        python = f"{sys.base_prefix}/bin/python3"
        offline = [
            "--quiet",
            "--no-compile",
            "--disable-pip-version-check",
            "--no-index",
            "--find-links",
            ".bundle/wheels",
        ]
        pinned = ["--require-hashes", "-r", ".bundle/wheels/requirements.txt"]
        install = ["-m", "bundle", "install", ".bundle", "--key", "stacks/bundle.pub"]
        for command in (
            ["tar", "-xf", str(tar), "-C", ".bundle"],
            [python, "-m", "venv", ".venv"],
            [".venv/bin/pip", "install", *offline, *pinned],
            ["env", "PATH=.bundle/bin:/usr/bin:/bin", ".venv/bin/python", *install],
            ["pulumi", "stack", "init", STACK, "--non-interactive"],
        ):
            done = self.run(*command)
            assert done.returncode == 0, done.stdout + done.stderr

    def use_bundle(self) -> None:
        """Settings: the embedded default's on these hosts, artifacts from the bundle."""
        self.configure(artifacts={"manifest": ".bundle/manifest.json", "publicKey": "stacks/bundle.pub"})

    def root(self, name: str) -> Path:
        """A host's disk, seen from here."""
        fleet = load_all()[self.prefix]
        return disk.root(fleet, fleet.host(name))

    def pid(self, name: str) -> int:
        """The host's first process, by its number here."""
        fleet = load_all()[self.prefix]
        space = network.namespace(fleet, fleet.host(name))
        listed = subprocess.run(["ip", "netns", "pids", space], capture_output=True, text=True, check=True)
        first = [int(pid) for pid in listed.stdout.split()]
        return min(pid for pid in first if Path(f"/proc/{pid}/comm").read_text() == "systemd\n")

    def journal(self, name: str, *words: str) -> str:
        """What a host's journal says, read from its disk, without a word to the host."""
        folder = self.root(name) / "var/log/journal"
        command = ["journalctl", "--no-pager", "--output=cat", f"--directory={folder}", *words]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout
