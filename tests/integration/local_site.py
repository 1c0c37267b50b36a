"""A site on hosts of its own: the real program, engine and policy pack, beside whatever else runs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

CHECKOUT = Path(__file__).resolve().parents[2]
STACK = "test"


@dataclass(frozen=True)
class LocalSite:
    """Hosts and the stack `test` of this project's program.

    Args:
        folder: holds keys, state and a project whose program is this checkout's.
        prefix: name of the set of hosts; they are PREFIX-1 (server), PREFIX-2 (agent) and so on.
        subnet: the first three numbers of their network, for example "10.216.4".
        within: what the user's commands are run by, such as `ip netns exec NAME`.
        count: how many hosts.
    """

    folder: Path
    prefix: str
    subnet: str
    within: tuple[str, ...] = ()
    count: int = 2

    @property
    def names(self) -> list[str]:
        """The hosts."""
        return [f"{self.prefix}-{number}" for number in range(1, self.count + 1)]

    @property
    def project(self) -> Path:
        """Where `pulumi` runs."""
        return self.folder / "project"

    def create(self) -> None:
        """Makes the hosts and the project with its stack."""
        self.localhosts("create", "--count", str(self.count))
        self.make_project()
        self.configure()

    def make_project(self) -> None:
        """Makes the project and an empty stack."""
        self.project.mkdir()
        for name in ("__main__.py", "components", "stacks", "policies", ".artifacts", ".venv"):
            (self.project / name).symlink_to(CHECKOUT / name)
        (self.folder / "state").mkdir()
        (self.project / "config").mkdir()
        settings = yaml.safe_load((CHECKOUT / "Pulumi.yaml").read_text())
        settings["stackConfigDir"] = "config"
        settings["runtime"]["options"]["virtualenv"] = sys.prefix
        (self.project / "Pulumi.yaml").write_text(yaml.safe_dump(settings))
        self.pulumi("stack", "init").check_returncode()

    def configure(self, **changes: Any) -> None:
        """Writes the stack's settings: those of the embedded default on these hosts, with changes."""
        file = self.project / "config" / f"Pulumi.{STACK}.yaml"
        kept = yaml.safe_load(file.read_text())
        config = yaml.safe_load((CHECKOUT / "stacks/Pulumi.local.yaml").read_text())["config"]
        config["edge-inference:hosts"] = [self.host(1, "server"), self.host(2, "agent")]
        for key, value in changes.items():
            config[f"edge-inference:{key}"] = value
        file.write_text(yaml.safe_dump(kept | {"config": config}))

    def host(self, number: int, role: str, **changes: Any) -> dict[str, Any]:
        """A host as the stack's settings have it."""
        name = f"{self.prefix}-{number}"
        return {
            "name": name,
            "role": role,
            "address": self.address(name),
            "privateKeyFile": str(self.key),
            "hostKeyFile": str(self.folder / f"hosts/{name}/ssh_host_ed25519_key.pub"),
        } | changes

    def address(self, name: str) -> str:
        """A host's IP address."""
        return f"{self.subnet}.{10 + int(name.rsplit('-', 1)[1])}"

    def localhosts(self, *words: str) -> None:
        """Runs `python -m localhosts` for these hosts."""
        fleet = ["--prefix", self.prefix, "--subnet", f"{self.subnet}.0/24"]
        command = [sys.executable, "-m", "localhosts", *words, *fleet, "--state", str(self.folder / "hosts")]
        subprocess.run(command, cwd=CHECKOUT, check=True, timeout=900)

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Runs a command as a user of this stack does."""
        return subprocess.run(
            [*self.within, *command],
            cwd=self.project,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )

    @property
    def environment(self) -> dict[str, str]:
        """The variables a user of this stack has set."""
        result = os.environ | {
            "PULUMI_BACKEND_URL": (self.folder / "state").as_uri(),
            "PULUMI_CONFIG_PASSPHRASE": "platform-test",
            "PYTHONPATH": str(CHECKOUT),
        }
        result.pop("PULUMI_CONFIG_PASSPHRASE_FILE", None)
        return result

    def pulumi(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Runs `pulumi` on the stack."""
        return self.run("pulumi", *words, "--stack", STACK, "--non-interactive")

    def output(self, name: str) -> Any:
        """A stack output."""
        return json.loads(self.pulumi("stack", "output", name, "--json").stdout)

    def ssh(self, name: str, command: str) -> str:
        """What a command prints on a host."""
        done = self.on_host(name, command)
        done.check_returncode()
        return done.stdout

    @property
    def key(self) -> Path:
        """The private key that logs in to the hosts."""
        return self.folder / "hosts/id_ed25519"

    def login(self, name: str) -> list[str]:
        """An ssh command line to a host, without what it runs there."""
        known = self.folder / f"{name}.known"
        address = self.address(name)
        known.write_text(f"{address} {(self.folder / f'hosts/{name}/ssh_host_ed25519_key.pub').read_text()}")
        options = ["-i", str(self.key), "-o", f"UserKnownHostsFile={known}", "-o", "BatchMode=yes"]
        return [*self.within, "ssh", *options, f"root@{address}"]

    def on_host(self, name: str, command: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        """Runs a command on a host, which may fail."""
        return subprocess.run(
            [*self.login(name), command],
            input=stdin,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def traces(self, name: str) -> list[str]:
        """What could stay on a host: files, units, mounts, links, firewall rules, cgroups, processes.

        Left out: what systemd keeps of its own work, login sessions, and the kernel's built-in firewall
        chains and debug mounts, which come when something asks for them.
        """
        command = (
            "find /usr/local /opt /etc /var/lib /root /home -xdev -not -path '/var/lib/systemd/*' | sort;"
            " systemctl list-unit-files --no-legend | awk '{ print $1, $2 }' | sort;"
            " ip -br link | cut -d' ' -f1 | cut -d@ -f1 | sort;"
            " cut -d' ' -f2,3 /proc/mounts | grep -vE '^/(run/user|sys/kernel)/' | sort;"
            " iptables-save | grep -E '^(-|:.* -)' | sed 's/ \\[.*//';"
            " find /sys/fs/cgroup -maxdepth 2 -name 'kubepods*';"
            " ps -e -o comm= | grep -E 'shim|k3s|wasm' || true"
        )
        return self.ssh(name, command).splitlines()
