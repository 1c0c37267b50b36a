"""The disk of a host: a copy of the base system with its name, keys and what this machine makes necessary."""

import json
import shutil
import uuid
from pathlib import Path

from localhosts import base
from localhosts.fleet import Fleet, Host
from localhosts.kernel import lacks_sys_resource
from localhosts.shell import dying_with_us, run, step

_FILES = Path(__file__).parent / "files"
_HOST_KEY = "etc/ssh/ssh_host_ed25519_key"


def folder(fleet: Fleet, host: Host) -> Path:
    """Folder of a host's disk, console log and mark."""
    return fleet.disks / host.name


def root(fleet: Fleet, host: Host) -> Path:
    """The host's root file system."""
    return folder(fleet, host) / "root"


def ensure(fleet: Fleet, host: Host) -> None:
    """Make the host's disk unless it is there and whole, and bring its keys up to date.

    A disk is whole when its mark, written last, names this checkout, address and base system.
    """
    home, base_root = folder(fleet, host), base.ensure(Path(fleet.cache))
    mark = home / "disk.json"
    wanted = {"checkout": fleet.checkout, "address": host.address, "base": base_root.name}
    if not mark.exists() or json.loads(mark.read_text()) != wanted:
        remove(fleet, host)
        home.mkdir(parents=True)
        with step(f"{host.name}: disk, a copy of the base system"):
            run(dying_with_us(["cp", "--archive", "--reflink=auto", str(base_root), str(root(fleet, host))]))
        _name_it(root(fleet, host), host)
        _keygen(root(fleet, host) / _HOST_KEY, host.name)
        mark.write_text(json.dumps(wanted))
    _settle(root(fleet, host), host)
    _exchange_keys(fleet, host)


def reset(fleet: Fleet, host: Host) -> None:
    """Make the host's disk afresh; it keeps its host key, so that who has pinned it still gets in."""
    kept = {}
    for suffix in ("", ".pub"):
        key = root(fleet, host) / f"{_HOST_KEY}{suffix}"
        if key.exists():
            kept[suffix] = key.read_bytes()
    remove(fleet, host)
    ensure(fleet, host)
    if len(kept) == 2:
        for suffix, content in kept.items():
            (root(fleet, host) / f"{_HOST_KEY}{suffix}").write_bytes(content)
        _exchange_keys(fleet, host)


def remove(fleet: Fleet, host: Host) -> None:
    """Remove the host's disk."""
    if folder(fleet, host).exists():
        shutil.rmtree(folder(fleet, host))


def _name_it(disk: Path, host: Host) -> None:
    (disk / "etc/hostname").write_text(f"{host.name}\n")
    (disk / "etc/hosts").write_text(f"127.0.0.1 localhost\n::1 localhost\n{host.address} {host.name}\n")
    (disk / "etc/machine-id").write_text(f"{uuid.uuid4().hex}\n")
    # K3s takes a public server unless the host names one. Nothing answers there: the host is air-gapped.
    resolver = disk / "etc/resolv.conf"
    resolver.unlink(missing_ok=True)
    resolver.write_text(f"nameserver {host.address.rsplit('.', 1)[0]}.1\n")
    (disk / "var/log/journal").mkdir(exist_ok=True)


def _settle(disk: Path, host: Host) -> None:
    """Install what the host needs because of this machine; all in /usr/lib, apart from the owner's files."""
    own, units = disk / "usr/lib/localhosts", disk / "usr/lib/systemd/system"
    own.mkdir(exist_ok=True)
    for name in ("prepare", "wrap-containerd", "containerd"):
        shutil.copy(_FILES / name, own / name)
        (own / name).chmod(0o755)
    shutil.copy(_FILES / "sshd.conf", disk / "etc/ssh/sshd_config.d/localhosts.conf")
    shutil.copy(_FILES / "localhosts-prepare.service", units)
    wants = units / "sysinit.target.wants"
    wants.mkdir(exist_ok=True)
    _link(wants / "localhosts-prepare.service", "../localhosts-prepare.service")
    # It would set sysctls of the kernel that all hosts and this machine share.
    _link(disk / "etc/systemd/system/systemd-sysctl.service", "/dev/null")
    for service in ("k3s", "k3s-agent"):
        drop_in = units / f"{service}.service.d/50-localhosts.conf"
        drop_in.unlink(missing_ok=True)
        if lacks_sys_resource():
            drop_in.parent.mkdir(exist_ok=True)
            shutil.copy(_FILES / "k3s-oom.conf", drop_in)
    (own / "meminfo").unlink(missing_ok=True)
    if host.memory_mib:
        (own / "meminfo").write_text(_meminfo(host.memory_mib))


def _meminfo(memory_mib: int) -> str:
    total = memory_mib * 1024
    rows = {"MemTotal": total, "MemFree": total * 3 // 4, "MemAvailable": total * 3 // 4, "Buffers": 0}
    rows |= {"Cached": 0, "SwapCached": 0, "SwapTotal": 0, "SwapFree": 0}
    return "".join(f"{name + ':':<15}{value:>9} kB\n" for name, value in rows.items())


def _exchange_keys(fleet: Fleet, host: Host) -> None:
    """Let the operator's key in, and write down the host's."""
    if not fleet.private_key.exists():
        _keygen(fleet.private_key, "edge-operator")
    ssh = root(fleet, host) / "root/.ssh"
    ssh.mkdir(mode=0o700, exist_ok=True)
    shutil.copy(fleet.private_key.with_suffix(".pub"), ssh / "authorized_keys")
    public = fleet.host_key(host.name)
    public.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(root(fleet, host) / f"{_HOST_KEY}.pub", public)


def _keygen(file: Path, comment: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    for leftover in (file, file.with_suffix(".pub")):
        leftover.unlink(missing_ok=True)
    run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", comment, "-f", str(file)])


def _link(link: Path, target: str) -> None:
    link.unlink(missing_ok=True)
    link.symlink_to(target)
