"""A host's machine: boot, power off, whether it is up and can be reached."""

import os
import subprocess
import tempfile
import time
from pathlib import Path

from localhosts import cgroups, disk, network
from localhosts.fleet import Fleet, Host
from localhosts.shell import LocalHostsError, run, say

_BOOT_SECONDS = 60.0
# The process enters its groups and notes its id before it becomes the machine: whenever this is cut short,
# the next command finds what is there.
_LAUNCH = """
pidfile=$1; shift
while [ "$1" != -- ]; do echo $$ > "$1/cgroup.procs"; shift; done
shift
echo $$ > "$pidfile"
exec "$@"
"""


def boot(fleet: Fleet, host: Host) -> None:
    """Boot the host from its disk; it outlives this command. Leftovers of a crashed one are cleared first."""
    power_off(fleet, host)
    network.plug_in(fleet, host)
    groups = cgroups.ensure(fleet.prefix, host.name, host.memory_mib)
    fleet.runtime.mkdir(exist_ok=True)
    launch = ["setsid", "--fork", "sh", "-c", _LAUNCH, "localhosts", str(_pidfile(fleet, host))]
    environment = {
        "PATH": os.environ["PATH"],
        "SYSTEMD_NSPAWN_API_VFS_WRITABLE": "1",
        "SYSTEMD_NSPAWN_TMPFS_TMP": "0",
        "SYSTEMD_NSPAWN_USE_CGNS": "1",
        "SYSTEMD_SECCOMP": "0",
    }
    with (disk.folder(fleet, host) / "console.log").open("ab") as console:
        subprocess.run(
            [*launch, *map(str, groups), "--", *_nspawn(fleet, host)],
            stdin=subprocess.DEVNULL, stdout=console, stderr=console, env=environment, cwd="/", check=True,
        )  # fmt: skip


def _nspawn(fleet: Fleet, host: Host) -> list[str]:
    """The machine itself; the flags are those that work where the machine runs no systemd."""
    binds = [f"--bind={device}" for device in ("/dev/fuse", "/dev/net/tun") if Path(device).exists()]
    if Path("/lib/modules").exists():
        binds.append("--bind-ro=/lib/modules")
    return [
        "systemd-nspawn", "--quiet", "--boot", "--keep-unit", "--register=no", "--private-users=no",
        "--capability=all", "--console=passive", "--resolv-conf=off", "--timezone=off", "--link-journal=no",
        f"--directory={disk.root(fleet, host)}", f"--machine={host.name}",
        f"--network-namespace-path=/run/netns/{network.namespace(fleet, host)}", *binds,
    ]  # fmt: skip


def power_off(fleet: Fleet, host: Host) -> None:
    """Pull the plug: every process of the host ends at once, pods included; the disk stays."""
    cgroups.kill_all(fleet.prefix, host.name)
    cgroups.remove(fleet.prefix, host.name)
    network.unplug(fleet, host)
    _pidfile(fleet, host).unlink(missing_ok=True)


def _pidfile(fleet: Fleet, host: Host) -> Path:
    return fleet.runtime / f"{host.name}.pid"


def uptime_seconds(fleet: Fleet, host: Host) -> float | None:
    """Seconds since the host was booted, None when it is off."""
    try:
        pid = int(_pidfile(fleet, host).read_text())
        if f"--machine={host.name}" not in Path(f"/proc/{pid}/cmdline").read_text().split("\0"):
            return None
        started = int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[19])
    except (OSError, ValueError):
        return None
    now = float(Path("/proc/uptime").read_text().split()[0])
    return now - started / os.sysconf("SC_CLK_TCK")


def ssh_command(fleet: Fleet, host: Host, known_hosts: Path) -> list[str]:
    """An ssh command line to the host that accepts only its pinned key; writes that to `known_hosts`."""
    kind, key = fleet.host_key(host.name).read_text().split()[:2]
    known_hosts.write_text(f"{host.address} {kind} {key}\n")
    options = {
        "UserKnownHostsFile": str(known_hosts),
        "GlobalKnownHostsFile": "/dev/null",
        "StrictHostKeyChecking": "yes",
        "IdentitiesOnly": "yes",
        "BatchMode": "yes",
        "ConnectTimeout": "3",
    }
    flags = [flag for name, value in options.items() for flag in ("-o", f"{name}={value}")]
    return ["ssh", "-F", "none", "-i", str(fleet.private_key), *flags, f"root@{host.address}"]


def reachable(fleet: Fleet, host: Host) -> bool:
    """Whether one can log in by ssh with the operator's key and the pinned host key."""
    if not fleet.host_key(host.name).exists() or not fleet.private_key.exists():
        return False
    with tempfile.TemporaryDirectory() as scratch:
        login = ssh_command(fleet, host, Path(scratch) / "known_hosts")
        return run([*login, "true"], check=False).returncode == 0


def await_ssh(fleet: Fleet, host: Host) -> None:
    """Wait until the host can be logged in to.

    Raises:
        LocalHostsError: it ended, or did not answer within a minute; the message says where its log is.
    """
    started = time.monotonic()
    log = f"see `python -m localhosts logs {host.name}`"
    while not reachable(fleet, host):
        waited = time.monotonic() - started
        if waited > 3 and uptime_seconds(fleet, host) is None:
            tail = (disk.folder(fleet, host) / "console.log").read_text(errors="replace")[-800:]
            raise LocalHostsError(f"host {host.name} ended while it booted; its console:\n{tail}")
        if waited > _BOOT_SECONDS:
            raise LocalHostsError(f"{host.name}: no ssh at {host.address}:22 after {waited:.0f} s; {log}")
        time.sleep(0.3)
    say(f"{host.name}: ssh root@{host.address} works")
