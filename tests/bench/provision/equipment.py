"""What the peers need and this project does not: Ansible in an environment of its own, Python on hosts."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import venv
from pathlib import Path

from localhosts import base
from tests.integration.local_site import LocalSite
from toolchain.manifest import CACHE

HERE = Path(__file__).parent


def _made(name: str, key: str) -> tuple[Path, bool]:
    """A folder of the cache named after what it is made from, and whether it is there."""
    folder = CACHE / "tests" / f"{name}-{hashlib.sha256(key.encode()).hexdigest()[:12]}"
    return folder, (folder / ".made").exists()


def ansible() -> Path:
    """The program `ansible-playbook`, of the version and with the hashes that ansible.txt pins."""
    lock = HERE / "ansible.txt"
    folder, there = _made("ansible", lock.read_text())
    if not there:
        venv.create(folder, with_pip=True, clear=True)
        pip = [str(folder / "bin/pip"), "install", "-q", "--disable-pip-version-check", "--require-hashes"]
        subprocess.run([*pip, "-r", lock], check=True)
        (folder / ".made").touch()
    return folder / "bin/ansible-playbook"


def _python_packages() -> Path:
    """Debian's packages of Python that a local host lacks, from where this machine has its own."""
    root = base.path(CACHE)
    folder, there = _made("host-python", root.name)
    if not there:
        shutil.rmtree(folder, ignore_errors=True)
        (folder / "partial").mkdir(parents=True)
        subprocess.run(["apt-get", "update", "-q"], check=True, capture_output=True)
        options = [f"Dir::State::status={root}/var/lib/dpkg/status", f"Dir::Cache::archives={folder}"]
        download = ["apt-get", "install", "-q", "-y", "--download-only", "--no-install-recommends"]
        words = [word for option in options for word in ("-o", option)]
        subprocess.run([*download, *words, "python3"], check=True, capture_output=True)
        (folder / ".made").touch()
    return folder


def install_python(site: LocalSite) -> None:
    """Put Python on the hosts, as hosts that Ansible manages have it."""
    files = sorted(_python_packages().glob("*.deb"))
    for name in site.names:
        archive = subprocess.run(
            ["tar", "-C", files[0].parent, "-c", *(file.name for file in files)],
            check=True,
            capture_output=True,
        ).stdout
        # Without sources, as apt would rather fetch the same file again than take it from the folder.
        apt = "apt-get install -q -y -o Dir::Etc::SourceList=/dev/null -o Dir::Etc::SourceParts=/dev/null"
        install = f"mkdir /tmp/p && tar -C /tmp/p -x && {apt} /tmp/p/*.deb && rm -r /tmp/p"
        subprocess.run([*site.login(name), install], input=archive, check=True, capture_output=True)
