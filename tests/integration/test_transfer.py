"""Artifacts on their way to real hosts: what is sent, what is not, cuts, damage, keys, a bastion."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.bench.scale import descendants
from tests.integration.line import Line
from tests.integration.local_site import CHECKOUT, STACK, LocalSite

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="local hosts need root: run the tests with sudo")

FOLDER = "/var/lib/edge-inference/artifacts"
MIB = 1 << 20
BIG = 48 * MIB
TALK = MIB // 2
"""More than checks, scripts and logins send."""


@dataclass
class Lab:
    """The site, the line to its first host, and the artifacts by name."""

    site: LocalSite
    line: Line
    artifacts: dict[str, dict[str, str]]

    @property
    def host(self) -> str:
        """The host at the end of the line."""
        return self.site.names[0]

    def make(self, name: str, size: int) -> Path:
        """Makes a file of random bytes and declares it."""
        file = self.site.folder / f"{name}.bin"
        file.write_bytes(os.urandom(size))
        self.artifacts[name] = {
            "source": str(file),
            "sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
        }
        return file

    def configure(self, *further: dict[str, Any]) -> None:
        """Writes the stack's config."""
        host = {"name": self.host, "address": "127.0.0.1", "port": self.line.port, "user": "root"}
        hosts = [
            each | {"hostKeyFile": str(self.site.folder / f"hosts/{each['name']}/ssh_host_ed25519_key.pub")}
            for each in (host, *further)
        ]
        config = {
            "transfer:hosts": hosts,
            "transfer:privateKeyFile": str(self.site.folder / "hosts/id_ed25519"),
            "transfer:artifacts": self.artifacts,
        }
        file = self.site.project / "config" / f"Pulumi.{STACK}.yaml"
        salt = yaml.safe_load(file.read_text())["encryptionsalt"]
        file.write_text(yaml.safe_dump({"encryptionsalt": salt, "config": config}))

    def up(self, *, well: bool = True) -> tuple[str, int]:
        """Runs `up`; returns what it printed and the bytes that went to the host."""
        self.configure()
        self.line.sent = 0
        done = self.site.pulumi("up", "--yes", "--skip-preview")
        text = done.stdout + done.stderr
        print(text, f"\n{self.line.sent} bytes to the host")
        assert (done.returncode == 0) == well, text
        return text, self.line.sent

    def staged(self, name: str | None = None) -> dict[str, str]:
        """What lies in a host's folder: file name to sha256."""
        listed = self.site.ssh(name or self.host, f"cd {FOLDER} && sha256sum -- * 2>/dev/null || true")
        return {file: found for found, file in (line.split() for line in listed.splitlines())}

    def whole(self) -> dict[str, str]:
        """What shall lie there."""
        return {
            f"{name}@{entry['sha256'][:12]}-{name}.bin": entry["sha256"]
            for name, entry in self.artifacts.items()
        }

    def start(self) -> subprocess.Popen[str]:
        """Begins an `up`."""
        self.configure()
        self.line.sent = 0
        command = ["pulumi", "up", "--yes", "--skip-preview", "--stack", STACK, "--non-interactive"]
        return subprocess.Popen(
            command,
            cwd=self.site.project,
            env=self.site.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def wait_for(self, sent: int, process: subprocess.Popen[str]) -> None:
        """Until so many bytes went to the host."""
        start = time.monotonic()
        while self.line.sent < sent:
            assert process.poll() is None, process.communicate()[0]
            assert time.monotonic() - start < 120
            time.sleep(0.05)


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    site = LocalSite(tmp_path_factory.mktemp("transfer"), "trf", "10.216.23")
    line = Line("10.216.23.11")
    try:
        site.create()
        (site.project / "__main__.py").unlink()
        shutil.copy(CHECKOUT / "tests/integration/transfer_site/__main__.py", site.project)
        made = Lab(site, line, {})
        made.make("model", BIG)
        made.make("script", 3000)
        yield made
    finally:
        line.close()
        site.localhosts("delete")


def test_a_slow_transfer_shows_how_far_it_is(lab: Lab) -> None:
    lab.line.rate = 4 * MIB
    text, sent = lab.up()
    lab.line.rate = 0
    assert lab.staged() == lab.whole()
    assert sent > BIG
    steps = [int(found) for found in re.findall(r"model: (\d+) of 48 MiB", text)]
    assert steps == sorted(set(steps))
    assert steps
    assert steps[-1] < 48


def test_an_unchanged_up_says_nothing_to_the_host(lab: Lab) -> None:
    _, sent = lab.up()
    assert sent == 0


def test_only_what_changed_is_sent(lab: Lab) -> None:
    old = set(lab.staged())
    lab.make("script", 4000)
    text, sent = lab.up()
    assert lab.staged() == lab.whole()
    assert len(old & set(lab.staged())) == 1, "the older script is gone"
    assert sent < TALK
    assert "sending script, 4000 of 4000 bytes" in text
    assert "sending model" not in text


def test_a_host_that_has_all_gets_nothing_though_the_state_is_lost(lab: Lab) -> None:
    for line in lab.site.pulumi("stack", "--show-urns").stdout.splitlines():
        if "URN" in line and f"{lab.host}-artifacts" in line:
            urn = line.split("URN: ")[1].strip()
    lab.site.pulumi("state", "delete", urn, "--yes").check_returncode()
    text, sent = lab.up()
    assert "sending" not in text
    assert sent < TALK


def test_damaged_files_on_the_host_are_replaced_alone(lab: Lab) -> None:
    damaged = next(name for name in lab.staged() if name.startswith("script"))
    lab.site.ssh(lab.host, f"echo more >>{FOLDER}/{damaged}")
    lab.make("another", 1000)
    _, sent = lab.up()
    assert lab.staged() == lab.whole()
    assert sent < TALK


def test_a_transfer_goes_on_where_it_was_cut(lab: Lab) -> None:
    lab.make("model", BIG)
    lab.line.cut_after = BIG // 2
    text, first = lab.up(well=False)
    lab.line.cut_after = 0
    assert "artifact model: the transfer ended early" in text
    assert f"error: host {lab.host}: " in text
    assert not set(lab.whole()) <= set(lab.staged())
    text, second = lab.up()
    assert lab.staged() == lab.whole()
    there = BIG - int(re.findall(r"sending model, (\d+) of", text)[0])
    assert there > BIG // 2 - 4 * MIB
    assert second < BIG - there + TALK
    assert first + second < BIG + 5 * MIB


def test_a_cable_that_is_pulled_ends_it_and_the_next_up_goes_on(lab: Lab) -> None:
    lab.make("model", BIG)
    lab.line.rate = 8 * MIB
    cable = ["ip", "-n", f"lh.{lab.site.prefix}.{lab.host}", "link", "set", "eth0"]
    process = lab.start()
    lab.wait_for(BIG // 4, process)
    subprocess.run([*cable, "down"], check=True)
    pulled = time.monotonic()
    try:
        text, _ = process.communicate(timeout=300)
    finally:
        subprocess.run([*cable, "up"], check=True)
    took = time.monotonic() - pulled
    print(text, f"\nended {took:.0f} s after the cable was pulled")
    assert process.returncode != 0
    assert "artifact model: the transfer ended early" in text
    lab.line.rate = 0
    lab.line.cut()
    text, sent = lab.up()
    assert lab.staged() == lab.whole()
    assert sent < BIG * 7 // 8


def test_a_killed_engine_leaves_a_part_that_the_next_up_goes_on_with(lab: Lab) -> None:
    lab.make("model", BIG)
    lab.line.rate = 8 * MIB
    process = lab.start()
    lab.wait_for(BIG // 4, process)
    for pid in list(descendants(process.pid)):
        with suppress(ProcessLookupError):  # it ends with its parent
            os.kill(pid, signal.SIGKILL)
    process.communicate()
    lab.line.rate = 0
    lab.site.pulumi("cancel", "--yes")
    _, sent = lab.up()
    assert lab.staged() == lab.whole()
    assert sent < BIG * 7 // 8


def test_a_damaged_part_is_sent_again_as_a_whole(lab: Lab) -> None:
    lab.make("model", BIG)
    lab.line.cut_after = BIG // 4
    lab.up(well=False)
    lab.line.cut_after = 0
    lab.site.ssh(lab.host, f"printf x | dd of=$(echo {FOLDER}/model@*.part) bs=1 seek=5 conv=notrunc")
    _, sent = lab.up()
    assert lab.staged() == lab.whole()
    assert sent > BIG * 5 // 4


def test_other_bytes_than_the_sum_says_are_refused(lab: Lab) -> None:
    right = lab.artifacts["script"]["sha256"]
    lab.artifacts["script"]["sha256"] = "5" * 64
    text, _ = lab.up(well=False)
    assert "artifact script refused: what arrives has not the sha256 5555" in text
    assert f"mend the file at {lab.artifacts['script']['source']}" in text
    lab.artifacts["script"]["sha256"] = right
    assert lab.staged() == lab.whole(), "the file before is still there, and nothing of the other"
    _, sent = lab.up()
    assert sent == 0


def test_the_key_is_in_no_process_list_and_no_file(lab: Lab) -> None:
    lab.make("model", BIG)
    lab.line.rate = 8 * MIB
    secret = (lab.site.folder / "hosts/id_ed25519").read_bytes().splitlines()[2]
    assert len(secret) > 40
    process = lab.start()
    lab.wait_for(BIG // 4, process)
    seen = 0
    for folder in Path("/proc").glob("[0-9]*"):
        for name in ("cmdline", "environ"):
            try:
                text = (folder / name).read_bytes()
            except OSError:
                continue
            seen += b"stage.sh" in text
            assert secret not in text, (folder / name, (folder / "comm").read_text())
    assert seen, "the step was not running"
    for file in Path("/tmp").glob("tmp.*/*"):  # noqa: S108  where mktemp puts the step's folder
        assert not file.is_file() or secret not in file.read_bytes()
    lab.line.rate = 0
    assert process.wait(timeout=300) == 0
    assert lab.staged() == lab.whole()


def test_through_a_bastion_to_a_user_with_sudo(lab: Lab) -> None:
    behind = lab.site.names[1]
    key = (lab.site.folder / "hosts/id_ed25519.pub").read_text().strip()
    lab.site.ssh(
        behind,
        "useradd -m -s /bin/bash fleet && install -d -m 700 -o fleet ~fleet/.ssh"
        f" && echo '{key}' >~fleet/.ssh/authorized_keys"
        " && echo 'fleet ALL=(ALL) NOPASSWD: ALL' >/etc/sudoers.d/fleet",
    )
    further = {
        "name": behind,
        "address": f"{lab.site.subnet}.12",
        "port": 22,
        "user": "fleet",
        "bastion": lab.host,
    }
    lab.configure(further)
    lab.line.sent = 0
    done = lab.site.pulumi("up", "--yes", "--skip-preview")
    print(done.stdout, done.stderr)
    assert done.returncode == 0
    assert lab.staged(behind) == lab.whole()
    assert lab.line.sent > BIG, "it went through the bastion"
    logins = lab.site.ssh(behind, "journalctl -u ssh -o cat | grep 'Accepted publickey for fleet'")
    assert all(f"from {lab.site.subnet}.11 " in login for login in logins.splitlines())
    assert lab.site.ssh(behind, f"stat -c '%U %a' {FOLDER}").split() == ["root", "700"]


def test_destroy_takes_all_of_it(lab: Lab) -> None:
    gone = lab.site.pulumi("destroy", "--yes", "--skip-preview")
    assert gone.returncode == 0, gone.stdout + gone.stderr
    for name in lab.site.names:
        assert lab.site.ssh(name, "ls -d /var/lib/edge-inference 2>/dev/null || true") == ""


def test_destroy_takes_a_part_too(lab: Lab) -> None:
    """The step that failed is in no state, and what it left behind goes all the same."""
    lab.line.cut_after = BIG // 4
    lab.up(well=False)
    lab.line.cut_after = 0
    assert [name for name in lab.staged() if name.endswith(".part")]
    lab.site.pulumi("destroy", "--yes", "--skip-preview").check_returncode()
    assert lab.site.ssh(lab.host, "ls -d /var/lib/edge-inference 2>/dev/null || true") == ""
