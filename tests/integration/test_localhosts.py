"""The local hosts for real: two more are made beside any others, used over ssh, and leave nothing behind."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from localhosts.fleet import load_all

_CHECKOUT = Path(__file__).resolve().parents[2]
_OPTIONS = ["--prefix", "lhtest", "--subnet", "10.215.7.0/24"]
_ADDRESSES = {"probe-a": "10.215.7.21", "probe-b": "10.215.7.22"}

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="local hosts need root: run the tests with sudo")


def _traces() -> dict[str, list[str]]:
    """What these hosts could leave on this machine, whatever other fleets come and go meanwhile."""
    netns = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=True).stdout
    links = json.loads(subprocess.run(["ip", "-j", "link"], capture_output=True, check=True).stdout)
    nspawn = [p for p in Path("/proc").glob("[0-9]*/cmdline") if b"--machine=probe-" in _bytes(p)]
    cgroups = [str(p) for p in Path("/sys/fs/cgroup").glob("*/edge-localhosts/lhtest*")]
    return {
        "namespaces": [line for line in netns.splitlines() if "lhtest" in line],
        "links": [link["ifname"] for link in links if "lhtest" in link["ifname"]],
        "mounts": [m for m in Path("/proc/self/mounts").read_text().splitlines() if "lhtest" in m],
        "processes": [str(p) for p in nspawn],
        "cgroups": cgroups,
        "files": [str(p) for p in Path("/run").glob("*/*lhtest*")],
    }


def _sysctls() -> list[str]:
    """Of the kernel, which all fleets share: they go back when the last one is deleted."""
    shared = ("kernel/panic", "kernel/panic_on_oops", "kernel/pid_max", "vm/overcommit_memory")
    return [(Path("/proc/sys") / name).read_text() for name in shared]


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


@dataclass(frozen=True)
class Lab:
    """The two hosts of this test."""

    state: Path

    def command(self, verb: str, *more: str) -> subprocess.CompletedProcess[str]:
        options = [*_OPTIONS, "--state", str(self.state)]
        command = [sys.executable, "-m", "localhosts", verb, *options, *more]
        return subprocess.run(
            command, cwd=_CHECKOUT, capture_output=True, text=True, check=False, timeout=900
        )

    def create(self) -> subprocess.CompletedProcess[str]:
        hosts = [item for name, address in _ADDRESSES.items() for item in ("--host", f"{name}={address}")]
        return self.command("create", "--count", "0", "--memory-mib", "700", *hosts)

    def ssh(self, name: str, script: str, pinned: str | None = None) -> subprocess.CompletedProcess[str]:
        """Run a script on a host; `pinned` names the host whose key is expected, that host by default."""
        key = (self.state / (pinned or name) / "ssh_host_ed25519_key.pub").read_text()
        known_hosts = self.state / f"known_hosts_{name}"
        known_hosts.write_text(f"{_ADDRESSES[name]} {' '.join(key.split()[:2])}\n")
        options = [
            "BatchMode=yes",
            "ConnectTimeout=3",
            "StrictHostKeyChecking=yes",
            f"UserKnownHostsFile={known_hosts}",
        ]
        flags = [flag for option in options for flag in ("-o", option)]
        login = [
            "ssh",
            "-F",
            "none",
            "-i",
            str(self.state / "id_ed25519"),
            *flags,
            f"root@{_ADDRESSES[name]}",
        ]
        return subprocess.run([*login, script], capture_output=True, text=True, check=False, timeout=60)


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """The two hosts, up; afterwards this machine must be as it was."""
    lab = Lab(tmp_path_factory.mktemp("hosts"))
    lab.command("delete")
    others, before, sysctls = bool(load_all()), _traces(), _sysctls()
    made = lab.create()
    try:
        assert made.returncode == 0, made.stdout + made.stderr
        yield lab
    finally:
        gone = lab.command("delete")
    assert gone.returncode == 0, gone.stderr
    assert _traces() == before
    if others or load_all():
        print("not compared: the kernel's sysctls, as other hosts of this machine need theirs")
    else:
        assert _sysctls() == sysctls
    assert not (lab.state / "id_ed25519").exists()


def test_hosts_are_debian_with_systemd_and_see_each_other(lab: Lab) -> None:
    answer = lab.ssh("probe-a", "cat /proc/1/comm /etc/hostname; . /etc/os-release; echo $VERSION_CODENAME")
    assert answer.stdout.split() == ["systemd", "probe-a", "bookworm"], answer.stderr
    running = lab.ssh("probe-a", "systemctl is-system-running --wait")
    assert running.stdout.strip() == "running"
    for name, other in (("probe-a", "probe-b"), ("probe-b", "probe-a")):
        assert lab.ssh(name, f"ping -c 1 -W 2 {_ADDRESSES[other]}").returncode == 0


def test_host_sees_its_memory_limit_and_is_bare(lab: Lab) -> None:
    assert lab.ssh("probe-a", "awk '/MemTotal/ {print $2}' /proc/meminfo").stdout.strip() == str(700 * 1024)
    assert (
        lab.ssh(
            "probe-a", "test ! -e /opt/wasmedge -a ! -e /var/lib/rancher -a ! -e /usr/bin/runc"
        ).returncode
        == 0
    )


def test_wrong_host_key_is_refused(lab: Lab) -> None:
    refused = lab.ssh("probe-a", "true", pinned="probe-b")
    assert refused.returncode == 255
    assert "Host key verification failed" in refused.stderr


def test_create_again_changes_nothing(lab: Lab) -> None:
    boot = "cat /proc/1/stat | cut -d' ' -f22"
    before = lab.ssh("probe-a", boot).stdout
    again = lab.create()
    assert again.returncode == 0, again.stderr
    assert "0 of them booted now" in again.stdout
    assert lab.ssh("probe-a", boot).stdout == before


def test_stop_and_start_keep_the_disk(lab: Lab) -> None:
    assert lab.ssh("probe-b", "echo kept > /root/mark; sync").returncode == 0
    started = time.monotonic()
    assert lab.command("stop", "probe-b").returncode == 0
    assert time.monotonic() - started < 10
    assert lab.command("status").returncode == 1
    assert lab.ssh("probe-b", "true").returncode == 255
    assert lab.command("start", "probe-b").returncode == 0
    assert lab.ssh("probe-b", "cat /root/mark").stdout.strip() == "kept"
    assert lab.command("status").returncode == 0


def test_create_recovers_from_a_crash(lab: Lab) -> None:
    """The hosts' processes and this machine's leg vanish; groups, namespaces and files stay."""
    for cmdline in Path("/proc").glob("[0-9]*/cmdline"):
        if b"--machine=probe-" in _bytes(cmdline):
            os.kill(int(cmdline.parent.name), 9)
    subprocess.run(["ip", "link", "delete", "lh-lhtest"], check=True)
    again = lab.create()
    assert again.returncode == 0, again.stdout + again.stderr
    assert lab.ssh("probe-a", "ping -c 1 -W 2 " + _ADDRESSES["probe-b"]).returncode == 0


def test_errors_name_the_host_or_option(lab: Lab) -> None:
    assert "no local host is called nobody" in lab.command("stop", "nobody").stderr
    moved = lab.command("create", "--count", "0", "--host", "probe-a=10.215.7.99")
    assert moved.returncode == 1
    assert "probe-a exists with address 10.215.7.21" in moved.stderr
    bad = lab.command("create", "--count", "0", "--host", "probe-c=10.9.9.9")
    assert "10.9.9.9 is no free address of 10.215.7.0/24" in bad.stderr
