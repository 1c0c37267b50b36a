"""A site with no way out: from a bundle to an answered inference, and no secret where others may read."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.air_site import AirSite
from tests.integration.local_site import CHECKOUT
from tests.integration.secret_search import needles, search
from workloads.signing import PUBLIC_KEY

HOST_FOLDERS = ["etc", "home", "opt", "root", "run", "srv", "tmp", "usr/local", "var", "dev/shm"]
"""All of a host but its base system and the kernel's own file systems."""
pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="local hosts need root: run the tests with sudo")


class Watched:
    """An `up` during which every process of this machine and of the hosts was looked at."""

    def __init__(self, site: AirSite) -> None:
        self.site = site
        notes = site.folder / "notes"
        watch = [sys.executable, str(CHECKOUT / "tests/integration/watch.py"), str(notes), str(site.scratch)]
        with subprocess.Popen(watch) as watcher:
            try:
                start = time.monotonic()
                done = site.pulumi("up", "--yes", "--policy-pack", "policies")
                print(f"\nup with no way out: {time.monotonic() - start:.0f} s")
            finally:
                watcher.terminate()
        self.printed = done.stdout + done.stderr
        assert done.returncode == 0, self.printed
        self.notes = [json.loads(line) for line in notes.read_text().splitlines()]
        self.rate = self.notes[-1]["where"]


def test_a_planted_secret_is_found(tmp_path: Path) -> None:
    """The watch sees it in command line, environment and file; the search finds the file."""
    secret = {"planted": "planted-" + uuid.uuid4().hex}
    notes, scratch = tmp_path / "notes", tmp_path / "scratch"
    scratch.mkdir()
    (scratch / "copy").write_text(f"key: {secret['planted']}\n")
    watch = [sys.executable, str(CHECKOUT / "tests/integration/watch.py"), str(notes), str(scratch)]
    environment = {**os.environ, "KEY": secret["planted"]}
    plant = [sys.executable, "-c", "import time; time.sleep(60)", secret["planted"]]
    with subprocess.Popen(plant, env=environment) as planted, subprocess.Popen(watch) as watcher:
        time.sleep(5)
        watcher.terminate()
        watcher.wait()
        planted.kill()
    seen = [json.loads(line) for line in notes.read_text().splitlines()]
    assert all(_holders(seen, kind, secret) for kind in ("cmdline", "environ", "file"))
    assert [each.path for each in search(tmp_path, ["scratch"], secret)] == ["/scratch/copy"]


@pytest.fixture(scope="module")
def tar(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundle, made on the connected machine."""
    file = tmp_path_factory.mktemp("connected") / "bundle.tar"
    make = [sys.executable, "-m", "bundle", "make", "--stack", "local", "--output", str(file)]
    start = time.monotonic()
    done = subprocess.run(make, cwd=CHECKOUT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    print(f"\n{done.stdout}made in {time.monotonic() - start:.0f} s")
    return file


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, tar: Path) -> Iterator[AirSite]:
    folder = tmp_path_factory.mktemp("air")
    made = AirSite(folder, "air", "10.216.17", within=("ip", "netns", "exec", "lh.air"))
    try:
        made.connect()
        made.make_project()
        yield made
    finally:
        made.localhosts("delete")


def _reaches(site: AirSite, where: str, address: str, port: int) -> bool:
    """Whether a TCP connection comes about, from a host or from the operator's machine."""
    dial = f"timeout 3 bash -c '</dev/tcp/{address}/{port}' 2>/dev/null && echo yes || echo no"
    if where == "operator":
        return site.run("sh", "-c", dial).stdout.strip() == "yes"
    return site.ssh(where, dial).strip() == "yes"


@pytest.fixture(scope="module")
def cut_off(site: AirSite) -> AirSite:
    """The site once nothing leads out of it, which is shown by a server on this machine."""
    with socket.create_server(("0.0.0.0", 0)) as server:  # noqa: S104 (it says nothing and lives for seconds)
        port = server.getsockname()[1]
        gateway = f"{site.subnet}.1"
        everywhere = ["operator", *site.names]
        assert [_reaches(site, where, gateway, port) for where in everywhere] == [True, True, True]
        site.cut()
        assert [_reaches(site, where, gateway, port) for where in everywhere] == [False, False, False]
    assert site.run("ip", "route", "show", "default").stdout == ""
    links = site.run("ip", "-json", "-4", "addr").stdout
    assert [each["local"] for link in json.loads(links) for each in link["addr_info"]] == [
        "127.0.0.1",
        f"{site.subnet}.2",
    ]
    return site


@pytest.fixture(scope="module")
def installed(cut_off: AirSite, tar: Path) -> AirSite:
    """The operator's machine with what came in the bundle, and nothing else."""
    start = time.monotonic()
    cut_off.install(tar, PUBLIC_KEY)
    cut_off.use_bundle()
    print(f"\nbundle unpacked and installed in {time.monotonic() - start:.0f} s")
    return cut_off


def test_carried_bundle_is_verified(installed: AirSite) -> None:
    done = installed.run("python", "-m", "bundle", "verify", ".bundle", "--key", "stacks/bundle.pub")
    assert done.returncode == 0, done.stdout
    assert re.search(r"signature good; \d+ files, 0 of them wrong", done.stdout)
    found = installed.run("sh", "-c", "command -v pulumi cosign python").stdout.split()
    assert all(Path(path).is_relative_to(installed.project) for path in found)
    assert not Path(found[0]).is_symlink()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "manifest.json",
            "edge-inference:artifacts.manifest: .bundle/manifest.json is not what the owner of",
        ),
        ("manifest.json.sigstore.json", "edge-inference:artifacts.manifest: "),
        (
            "artifacts/k3s",
            "edge-inference:artifacts.manifest: .bundle/manifest.json: artifact k3s: .bundle/art",
        ),
    ],
)
def test_one_changed_byte_is_refused_before_any_ssh(installed: AirSite, name: str, message: str) -> None:
    spoken = {host: installed.journal(host, "--unit=ssh") for host in installed.names}
    assert all("Accepted publickey" in said for said in spoken.values())
    file = installed.bundle / name
    with file.open("r+b") as opened:
        at = file.stat().st_size // 2
        opened.seek(at)
        byte = opened.read(1)
        opened.seek(at)
        opened.write(bytes([byte[0] ^ 1]))
    try:
        refused = installed.pulumi("up", "--yes", "--skip-preview")
        checked = installed.run("python", "-m", "bundle", "verify", ".bundle", "--key", "stacks/bundle.pub")
    finally:
        with file.open("r+b") as opened:
            opened.seek(at)
            opened.write(byte)
    print(refused.stdout[-900:])
    assert refused.returncode != 0
    assert message in refused.stdout
    assert "Traceback" not in refused.stdout + refused.stderr
    assert checked.returncode == 1, checked.stdout
    assert {host: installed.journal(host, "--unit=ssh") for host in installed.names} == spoken


@pytest.fixture(scope="module")
def up(installed: AirSite) -> Watched:
    """The site's `up`, watched."""
    return Watched(installed)


def test_model_answers_and_is_right(up: Watched) -> None:
    url = up.site.output("endpoints")["ai-inference"]
    asked = subprocess.run(
        [*up.site.within, sys.executable, "-m", "workloads", "query", url],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert asked.returncode == 0, asked.stdout + asked.stderr
    print(asked.stdout)


@pytest.fixture(scope="module")
def secret(up: Watched) -> dict[str, str]:
    """Texts that stand only where a secret of the site stands."""
    return needles(up.site)


def _holders(notes: list[dict[str, str]], kind: str, secret: dict[str, str]) -> list[str]:
    return [
        f"{name} in {note['where']}: user {note['user']}"
        for note in notes
        if note["kind"] == kind
        for name, text in secret.items()
        if text in note["text"]
    ]


def test_no_secret_in_a_process_list(up: Watched, secret: dict[str, str]) -> None:
    """On the hosts and here, whatever lived long enough to be seen."""
    lines = [note["text"] for note in up.notes if note["kind"] == "cmdline"]
    print(f"\n{len(lines)} command lines, looked at {up.rate}")
    for running in ("k3s.sh\0apply", "k3s server", "k3s agent", "model.sh\0apply", "pulumi-resource-command"):
        assert any(running in line for line in lines), f"{running} was not seen: nothing is shown by this"
    assert _holders(up.notes, "cmdline", secret) == []


def test_no_secret_in_an_environment(up: Watched, secret: dict[str, str]) -> None:
    assert len([note for note in up.notes if note["kind"] == "environ"]) > 20
    assert _holders(up.notes, "environ", secret) == []


def test_no_secret_in_what_is_printed_and_logged(up: Watched, secret: dict[str, str]) -> None:
    site = up.site
    texts = {"pulumi up": up.printed, "stack output": site.pulumi("stack", "output", "--json").stdout}
    again = site.pulumi("up", "--yes", "--skip-preview", "--diff", "--show-config", "--show-sames")
    assert re.search(r"\d+ unchanged", again.stdout), again.stdout[-900:]
    texts["up --diff"] = again.stdout + again.stderr
    texts |= {name: site.journal(name) for name in site.names}
    assert all(len(text) > 200 for text in texts.values())
    held = [(where, name) for where, text in texts.items() for name, part in secret.items() if part in text]
    assert held == []


def test_no_secret_in_plain_state_logs_and_temporary_files_here(up: Watched, secret: dict[str, str]) -> None:
    """In all the site's folder: state with backups and history, Pulumi's home with its logs, scratch."""
    folder = up.site.folder
    start = up.site.project / "stacks/bundle.pub"
    found = search(Path("/"), [str(folder)], secret)
    found += search(Path("/"), ["/tmp", "/var/tmp", "/dev/shm"], secret, since=start)  # noqa: S108
    allowed = {folder / "hosts/id_ed25519", folder / "project/.state/passphrase"}
    places = {each.file for each in found if each.file != folder / "notes"}
    assert places == allowed
    assert {file.stat().st_mode & 0o777 for file in allowed} == {0o600}
    states = [path.name for path in (folder / "project/.state/pulumi").rglob("*") if path.is_file()]
    assert {"test.json", "test.json.bak"} <= set(states)
    assert any(name.endswith(".history.json") for name in states)
    held = _holders(up.notes, "file", secret)
    print("\nheld for a while, and gone again: " + ", ".join(held))
    assert [line for line in held if " 600: user 0" not in line] == []


def test_secrets_on_hosts_are_roots_alone(up: Watched, secret: dict[str, str]) -> None:
    for name in up.site.names:
        found = search(Path(f"/proc/{up.site.pid(name)}/root"), HOST_FOLDERS, secret)
        print(f"\n{name}:\n" + "\n".join(map(str, found)))
        assert "/etc/rancher/k3s/token" in {each.path for each in found}, "the search finds nothing"
        assert [str(each) for each in found if each.user != 0 or each.mode & 0o077] == []
        assert not any(each.path.startswith("/var/log/") for each in found)
