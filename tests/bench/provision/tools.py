"""The tools that are compared: each makes a cluster of bare local hosts, and is run again on it unchanged."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, ClassVar, Protocol

import yaml

from tests.bench.provision.equipment import HERE, ansible, install_python
from tests.integration.local_site import CHECKOUT, STACK, LocalSite

ARTIFACTS = CHECKOUT / ".artifacts"
IMAGES = "/var/lib/rancher/k3s/agent/images"
DISABLED = ["traefik", "local-storage"]
TOKEN = "provision-bench"  # noqa: S105 - the peers' clusters live for a minute
Phases = dict[str, float]


class Tool(Protocol):
    """A way to install K3s.

    prepare: what is not timed: the tool's own files, and what it needs on the hosts.
    run: install, or find all installed; returns how many seconds into it each phase that it shows ended.
    """

    def prepare(self, site: LocalSite) -> None: ...
    def run(self, site: LocalSite) -> Phases: ...


def succeed(command: Sequence[str | Path], cwd: Path, env: dict[str, str] | None = None) -> None:
    """Run a command; one that fails ends the benchmark with what it said."""
    done = subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"{command[0]}: {done.stdout[-3000:]}{done.stderr[-3000:]}")


class Project:
    """This project: `pulumi up` of the whole program without a service: hosts checked, WasmEdge on them."""

    # The last line of each phase in what `pulumi up` shows.
    ENDS: ClassVar[dict[str, str]] = {
        "engine and program start": r"pulumi:pulumi:Stack .* creating",
        "checks of the hosts": r"-preflight created",
        "artifacts sent and verified": r"-artifacts created",
        "WasmEdge unpacked": r"-wasmedge created",
        "server's K3s installed, started, Ready": r"-1-k3s created",
        "agents' K3s installed, started, Ready": r"-(k3s|rollout) created",
        "labels, kubeconfig": r"-(node|kubeconfig) created",
    }
    LAST = "objects in the cluster, end"

    def configure(self, site: LocalSite) -> None:
        """Write the stack's settings."""
        hosts = [site.host(number + 1, "agent" if number else "server") for number in range(site.count)]
        site.configure(hosts=hosts, services=[])

    def prepare(self, site: LocalSite) -> None:
        site.make_project()
        self.configure(site)

    def run(self, site: LocalSite) -> Phases:
        command = ["pulumi", "up", "--yes", "--skip-preview", "--non-interactive", "--stack", STACK]
        start, phases, shown = time.monotonic(), dict[str, float](), ""
        with subprocess.Popen(
            command,
            cwd=site.project,
            env=site.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        ) as process:
            for line in process.stdout or ():
                shown += line
                for phase, pattern in self.ENDS.items():
                    if re.search(pattern, line):
                        phases[phase] = time.monotonic() - start
        if process.returncode != 0:
            raise SystemExit(shown)
        return phases | {self.LAST: time.monotonic() - start}


class Components(Project):
    """This project's components in examples/cluster: K3s alone, as the peers install it."""

    def configure(self, site: LocalSite) -> None:
        file = site.project / "config" / f"Pulumi.{STACK}.yaml"
        wanted = [site.host(number + 1, "agent" if number else "server") for number in range(site.count)]
        hosts = [{key: host[key] for key in ("name", "role", "address", "hostKeyFile")} for host in wanted]
        config = {
            "edge-inference:hosts": hosts,
            "edge-inference:privateKeyFile": str(site.key),
            "edge-inference:artifacts": str(ARTIFACTS),
        }
        file.write_text(yaml.safe_dump(yaml.safe_load(file.read_text()) | {"config": config}))
        (site.project / "__main__.py").unlink()
        shutil.copy(CHECKOUT / "examples/cluster/__main__.py", site.project)


class Ansible:
    """The steps of the collection k3s.orchestration, by its settings for ssh; see site.yml."""

    def prepare(self, site: LocalSite) -> None:
        ansible()
        install_python(site)
        known = site.folder / "known_hosts"
        known.write_text("".join((site.folder / f"{name}.known").read_text() for name in site.names))
        server, *agents = ({name: {"ansible_host": site.address(name)}} for name in site.names)
        groups = {
            "server": {"hosts": server},
            "agent": {"hosts": {k: v for host in agents for k, v in host.items()}},
        }
        common: dict[str, Any] = {
            "ansible_user": "root",
            "ansible_ssh_private_key_file": str(site.key),
            "ansible_ssh_common_args": f"-o UserKnownHostsFile={known}",
            "ansible_python_interpreter": "/usr/bin/python3",
            "artifacts": str(ARTIFACTS),
            "api_endpoint": site.address(site.names[0]),
            "token": TOKEN,
            "server_config": {"disable": DISABLED},
            "kubeconfig": str(site.folder / "kubeconfig"),
        }
        inventory = {"all": {"children": groups, "vars": common}}
        (site.folder / "inventory.json").write_text(json.dumps(inventory))
        (site.folder / "ansible.cfg").write_text("[defaults]\npipelining = True\n")

    def run(self, site: LocalSite) -> Phases:
        environment = site.environment | {"ANSIBLE_CONFIG": str(site.folder / "ansible.cfg")}
        playbook = [str(ansible()), "-i", str(site.folder / "inventory.json"), str(HERE / "site.yml")]
        succeed(playbook, site.folder, environment)
        return {}


class Script:
    """Upstream's install script by ssh and scp, as a shell loop would: the least that installs K3s."""

    def prepare(self, site: LocalSite) -> None:
        pass

    def run(self, site: LocalSite) -> Phases:
        server, *agents = site.names
        with ThreadPoolExecutor(site.count) as pool:
            list(pool.map(lambda name: self.send(site, name), site.names))
            self.install(site, server, f"server --disable {','.join(DISABLED)}", "")
            url = f"K3S_URL=https://{site.address(server)}:6443"
            list(pool.map(lambda name: self.install(site, name, "agent", url), agents))
        succeed([*site.login(server), "cat /etc/rancher/k3s/k3s.yaml"], site.folder)
        return {}

    def send(self, site: LocalSite, name: str) -> None:
        """Copy the artifacts to where the install script and K3s look for them."""
        succeed([*site.login(name), f"mkdir -p {IMAGES}"], site.folder)
        _, *options, user = site.login(name)
        for file, target in (
            ("k3s", "/usr/local/bin/k3s"),
            ("k3s-images.tar.zst", f"{IMAGES}/k3s-images.tar.zst"),
            ("k3s-install.sh", "/root/k3s-install.sh"),
        ):
            succeed(["scp", *options, ARTIFACTS / file, f"{user}:{target}"], site.folder)

    def install(self, site: LocalSite, name: str, words: str, more: str) -> None:
        """Run the script; it starts K3s, unless nothing changed."""
        values = f"INSTALL_K3S_SKIP_DOWNLOAD=true INSTALL_K3S_EXEC='{words}' K3S_TOKEN={TOKEN} {more}"
        succeed([*site.login(name), f"{values} sh /root/k3s-install.sh"], site.folder)


TOOLS: dict[str, Tool] = {
    "this project, K3s alone": Components(),
    "this project, all": Project(),
    "Ansible": Ansible(),
    "install script": Script(),
}
PEERS = ("Ansible", "install script")
