"""Every way to a host: direct or by a bastion, as root or by sudo, on any port, with a key from anywhere."""

from __future__ import annotations

import itertools
import os
import re
import shlex
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.integration.local_site import CHECKOUT, STACK, LocalSite

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="local hosts need root: run the tests with sudo")

PORT = 2222
SOURCES = ("file", "secret", "agent")
WAYS = list(itertools.product(("direct", "bastion"), ("root", "edge"), (22, PORT), SOURCES))


@dataclass(frozen=True)
class Keys:
    """A key for each place that one can come from, so that a host's log tells which was used."""

    folder: Path

    def file(self, source: str) -> Path:
        """The private key."""
        return self.folder / source

    def public(self, source: str) -> str:
        """The line of authorized_keys."""
        return self.file(source).with_suffix(".pub").read_text().strip()

    def fingerprint(self, source: str) -> str:
        """As sshd logs it."""
        shown = subprocess.run(
            ["ssh-keygen", "-lf", str(self.file(source))], capture_output=True, text=True, check=True
        )
        return shown.stdout.split()[1]

    @property
    def socket(self) -> str:
        """The agent's."""
        return str(self.folder / "agent.sock")

    def login(self, source: str) -> dict[str, str]:
        """The settings that name the key; a secret is set by `pulumi config`."""
        return {
            "file": {"privateKeyFile": str(self.file("file"))},
            "agent": {"agentSocket": self.socket},
            "secret": {},
        }[source]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalSite]:
    """The first host is the bastion, the second is reached directly, the third only by the bastion."""
    made = LocalSite(tmp_path_factory.mktemp("topo"), "topo", "10.216.15", count=3)
    try:
        made.create()
        yield made
    finally:
        made.localhosts("delete")


@pytest.fixture(scope="module")
def keys(site: LocalSite) -> Iterator[Keys]:
    """Keys, and users on the hosts that they let in."""
    made = Keys(site.folder / "keys")
    made.folder.mkdir()
    for source in SOURCES:
        subprocess.run(
            ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(made.file(source))], check=True
        )
    agent = subprocess.Popen(["ssh-agent", "-D", "-a", made.socket], stdout=subprocess.DEVNULL)
    try:
        while not Path(made.socket).exists():
            assert agent.poll() is None
        environment = os.environ | {"SSH_AUTH_SOCK": made.socket}
        subprocess.run(["ssh-add", "-q", str(made.file("agent"))], env=environment, check=True)
        _users(site, made)
        yield made
    finally:
        agent.kill()
        agent.wait()


def _users(site: LocalSite, keys: Keys) -> None:
    """`edge` has sudo without a password, with a terminal of its own as newer ones give; `asks` types one."""
    allowed = "\n".join(keys.public(source) for source in SOURCES)
    sudo = "edge ALL=(root) NOPASSWD: ALL\nDefaults:edge use_pty\nasks ALL=(root) ALL\n"
    sshd = f"Port 22\nPort {PORT}\nLogLevel VERBOSE\nMaxStartups 100\n"
    for name in site.names:
        only = f"AllowUsers *@{site.address(site.names[0])} root@{site.subnet}.1\n"
        behind = only if name == site.names[2] else ""
        lines = [f"printf %s {shlex.quote(allowed + chr(10))} >>/root/.ssh/authorized_keys"]
        for user in ("edge", "asks"):
            lines += [
                f"useradd -m -s /bin/sh {user}",
                f"install -d -m 700 -o {user} /home/{user}/.ssh",
                f"printf %s {shlex.quote(allowed)} >/home/{user}/.ssh/authorized_keys",
                f"chown {user} /home/{user}/.ssh/authorized_keys",
            ]
        lines += [
            f"printf %s {shlex.quote(sudo)} >/etc/sudoers.d/edge",
            f"printf %s {shlex.quote(sshd + behind)} >/etc/ssh/sshd_config.d/00-test.conf",
            "systemctl restart ssh",
        ]
        site.ssh(name, " && ".join(lines))


def host(site: LocalSite, keys: Keys, number: int, role: str, **changes: Any) -> dict[str, Any]:
    """A host whose key comes from `source`; the third is behind the bastion."""
    source = changes.pop("source", "file")
    made = site.host(number, role, **changes)
    del made["privateKeyFile"]
    made |= keys.login(source)
    if number == 3:
        bastion = site.host(1, "agent")
        made["proxy"] = {
            "address": bastion["address"],
            "port": PORT,
            "user": "edge",
            "hostKeyFile": bastion["hostKeyFile"],
        } | keys.login(source)
    return made


def configure(
    site: LocalSite, keys: Keys, hosts: list[dict[str, Any]], secret: list[str], **changes: Any
) -> None:
    """Writes the settings, and sets private keys at the paths below hosts as secrets."""
    site.configure(hosts=hosts, **changes)
    for path in secret:
        setting = f"edge-inference:hosts{path}.privateKey"
        command = ["pulumi", "config", "set", "--secret", "--path", setting, "--stack", STACK]
        text = keys.file("secret").read_bytes()
        subprocess.run(command, cwd=site.project, env=site.environment, input=text, check=True)


def use(site: LocalSite, program: Path) -> None:
    """Makes a file the stack's program."""
    (site.project / "__main__.py").unlink(missing_ok=True)
    (site.project / "__main__.py").symlink_to(program)


def test_each_way_reaches_its_host(site: LocalSite, keys: Keys) -> None:
    use(site, CHECKOUT / "tests/integration/connections/__main__.py")
    hosts, secret = [], []
    for index, (way, user, port, source) in enumerate(WAYS):
        number, role = (3 if way == "bastion" else 2), "agent" if index else "server"
        name = f"{way}-{user}-{port}-{source}"
        hosts.append(host(site, keys, number, role, name=name, user=user, port=port, source=source))
        if source == "secret":
            secret += [f"[{index}]"] + ([f"[{index}].proxy"] if way == "bastion" else [])
    configure(site, keys, hosts, secret, services=[])
    for name in site.names:
        site.ssh(name, "journalctl --rotate -q && journalctl --vacuum-time=1s -q")
    done = site.pulumi("up", "--yes", "--skip-preview")
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(site.output("reached")) == len(WAYS) == 24

    for number, way in ((2, "direct"), (3, "bastion")):
        come_from = f"{site.subnet}.1" if way == "direct" else site.address(site.names[0])
        log = site.ssh(site.names[number - 1], "journalctl -u ssh -o cat --no-pager")
        logins = set(re.findall(r"Accepted publickey for (\S+) from (\S+) port \d+ ssh2: ED25519 (\S+)", log))
        wanted = {(user, come_from, keys.fingerprint(source)) for _, user, _, source in WAYS}
        assert wanted <= logins
        assert len(re.findall(rf"Connection from {come_from} port \d+ on \S+ port {PORT}", log)) >= 6
    bastion = site.ssh(site.names[0], "journalctl -u ssh -o cat --no-pager")
    for source in SOURCES:
        assert f"ED25519 {keys.fingerprint(source)}" in bastion
    state = "".join(file.read_text() for file in (site.folder / "state").rglob("*.json"))
    assert "direct-root-22-secret" in state
    for source in ("file", "secret"):
        assert keys.file(source).read_text().splitlines()[1] not in state

    gone = site.pulumi("destroy", "--yes", "--skip-preview")
    assert gone.returncode == 0, gone.stdout + gone.stderr


def refused(site: LocalSite) -> str:
    """An `up` that must fail; returns its message."""
    done = site.pulumi("up", "--yes", "--skip-preview")
    print(done.stdout)
    assert done.returncode != 0
    assert "Traceback" not in done.stdout
    return done.stdout


def test_sudo_that_asks_for_a_password(site: LocalSite, keys: Keys) -> None:
    configure(site, keys, [host(site, keys, 2, "server", user="asks")], [], services=[])
    text = refused(site)
    assert f"error: host {site.names[1]}: user asks may not run commands by sudo without a password" in text
    assert site.ssh(site.names[1], "ls /var/lib/edge-inference 2>/dev/null || true") == ""


def test_bastion_with_another_key(site: LocalSite, keys: Keys) -> None:
    behind = host(site, keys, 3, "server")
    behind["proxy"]["hostKeyFile"] = behind["hostKeyFile"]
    configure(site, keys, [behind], [], services=[])
    text = refused(site)
    assert f"proxy {site.address(site.names[0])}:{PORT}" in text
    assert "host key mismatch" in text


def test_only_the_bastion_gets_in(site: LocalSite, keys: Keys) -> None:
    direct = host(site, keys, 3, "server", user="edge")
    del direct["proxy"]
    configure(site, keys, [direct], [], services=[])
    assert "unable to authenticate" in refused(site)


def test_a_site_behind_a_bastion_serves_and_goes(site: LocalSite, keys: Keys) -> None:
    """The whole program by bastion, sudo, another port and a secret key; the removal leaves nothing."""
    use(site, CHECKOUT / "__main__.py")
    name = site.names[2]
    before = site.traces(name)
    behind = host(site, keys, 3, "server", user="edge", port=PORT, source="secret")
    configure(site, keys, [behind], ["[0]", "[0].proxy"])
    done = site.pulumi("up", "--yes", "--skip-preview")
    assert done.returncode == 0, done.stdout + done.stderr
    asked = site.run("python", "-m", "workloads", "query", site.output("endpoints")["ai-inference"])
    assert asked.returncode == 0, asked.stdout + asked.stderr
    again = site.pulumi("up", "--yes")
    assert re.search(r"Resources:\s+\d+ unchanged\s+Duration", again.stdout), again.stdout[-2000:]
    gone = site.pulumi("destroy", "--yes", "--skip-preview")
    assert gone.returncode == 0, gone.stdout + gone.stderr
    assert sorted(set(site.traces(name)) ^ set(before)) == []
