"""The base system of all local hosts: a Debian bookworm root, made once and cached by what is in it."""

import hashlib
import shutil
from pathlib import Path

from localhosts.shell import dying_with_us, run, step

# bookworm, because its systemd still runs on cgroup v1 where the machine's kernel has no other.
SUITE = "bookworm"
# What an ordinary Debian server has, and what K3s calls on a host; no container runtime and no CNI plugins.
# fmt: off
PACKAGES = [
    "systemd-sysv", "dbus", "openssh-server", "iproute2", "iptables", "nftables", "ipset", "conntrack",
    "ebtables", "ethtool", "socat", "kmod", "procps", "ca-certificates", "curl", "sudo", "zstd",
    "iputils-ping",
]
# fmt: on


def path(cache: Path) -> Path:
    """Where the base root is, or will be: the name changes with suite and packages."""
    key = hashlib.sha256(" ".join([SUITE, *PACKAGES]).encode()).hexdigest()[:12]
    return cache / "roots" / f"bookworm-host-{key}"


def ensure(cache: Path) -> Path:
    """Make the base root unless it is cached (about 2 minutes and 350 MB), and return its folder.

    Raises:
        LocalHostsError: debootstrap failed; the message holds its last lines.
    """
    root = path(cache)
    if root.is_dir():
        return root
    root.parent.mkdir(parents=True, exist_ok=True)
    for leftover in root.parent.glob(".bookworm-host-*"):
        shutil.rmtree(leftover)
    fresh = root.with_name(f".{root.name}")
    with step(f"base system: Debian {SUITE} from packages, once"):
        _bootstrap(fresh)
    _strip(fresh)
    fresh.rename(root)
    return root


def _bootstrap(root: Path) -> None:
    """Run debootstrap in mount and process namespaces of its own, so that a kill leaves nothing behind."""
    isolated = ["unshare", "--mount", "--propagation", "private", "--pid", "--fork", "--kill-child"]
    bootstrap = ["debootstrap", "--variant=minbase", f"--include={','.join(PACKAGES)}", SUITE, str(root)]
    run(dying_with_us([*isolated, *bootstrap]))


def _strip(root: Path) -> None:
    """Remove what must differ from host to host, and the packages that were downloaded."""
    for key in (root / "etc/ssh").glob("ssh_host_*"):
        key.unlink()
    for package in (root / "var/cache/apt/archives").glob("*.deb"):
        package.unlink()
    (root / "etc/machine-id").write_text("")
