"""A control group per host in each hierarchy of this machine, v1 or v2: to limit, to measure, to kill."""

import time
from pathlib import Path

from localhosts.shell import LocalHostsError, kill

_ROOT = "edge-localhosts"
_KILL_SECONDS = 8.0


def _hierarchies() -> list[tuple[Path, str]]:
    """Mount point and options of each hierarchy; a v2 one has no options that matter here."""
    found = []
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, target, kind, options = line.split()[:4]
        if kind in ("cgroup", "cgroup2"):
            found.append((Path(target), options if kind == "cgroup" else "v2"))
    return found


def _groups(prefix: str, name: str = "") -> list[Path]:
    return [mount / _ROOT / prefix / name for mount, _ in _hierarchies()]


def ensure(prefix: str, name: str, memory_mib: int) -> list[Path]:
    """Make a host's groups with its memory limit, and return their folders, one a hierarchy."""
    groups = []
    for mount, options in _hierarchies():
        group = mount
        for part in (_ROOT, prefix, name):
            _pass_controllers_down(group, options)
            group = group / part
            group.mkdir(exist_ok=True)
            if "cpuset" in options.split(","):
                # A v1 cpuset starts empty and lets no process in.
                for setting in ("cpuset.cpus", "cpuset.mems"):
                    (group / setting).write_text((group.parent / setting).read_text())
                (group / "cgroup.clone_children").write_text("1")
        limit = group / ("memory.max" if options == "v2" else "memory.limit_in_bytes")
        if memory_mib and limit.exists():
            limit.write_text(str(memory_mib * 1024 * 1024))
        groups.append(group)
    return groups


def _pass_controllers_down(group: Path, options: str) -> None:
    """In v2, a child has only the controllers that its parent hands down."""
    if options != "v2":
        return
    for controller in (group / "cgroup.controllers").read_text().split():
        (group / "cgroup.subtree_control").write_text(f"+{controller}")


def memory_mib(prefix: str, name: str) -> int:
    """Memory in use by a host in MiB, without the file cache that the kernel can drop."""
    for group in _groups(prefix, name):
        usage = group / "memory.usage_in_bytes"
        used = usage if usage.exists() else group / "memory.current"
        if used.exists():
            stat = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
            dropped = int(stat.get("total_inactive_file", stat["inactive_file"]))
            return max(0, int(used.read_text()) - dropped) // (1024 * 1024)
    return 0


def names(prefix: str) -> set[str]:
    """Names of the hosts that have groups, also of hosts no record knows."""
    groups = [group for group in _groups(prefix) if group.is_dir()]
    return {child.name for group in groups for child in group.iterdir() if child.is_dir()}


def processes(prefix: str, name: str) -> set[int]:
    """Ids of all processes of a host, as this machine sees them."""
    found: set[int] = set()
    for group in _groups(prefix, name):
        for procs in group.rglob("cgroup.procs"):
            try:
                found.update(int(pid) for pid in procs.read_text().split())
            except OSError:
                continue  # the group went away meanwhile
    return found


def kill_all(prefix: str, name: str) -> None:
    """Kill every process of a host, and wait until they are gone.

    Raises:
        LocalHostsError: some are still there after a few seconds; the message lists them.
    """
    deadline = time.monotonic() + _KILL_SECONDS
    while left := processes(prefix, name):
        if time.monotonic() > deadline:
            raise LocalHostsError(f"host {name}: processes {sorted(left)} do not end; run the command again")
        for pid in left:
            kill(pid)
        time.sleep(0.1)


def remove(prefix: str, name: str) -> None:
    """Remove a host's groups, and those above it that are empty then."""
    for group in _groups(prefix, name):
        for folder in sorted((path for path in group.rglob("*") if path.is_dir()), reverse=True):
            _rmdir(folder)
        for folder in (group, group.parent, group.parent.parent):
            if folder.is_dir() and not any(child.is_dir() for child in folder.iterdir()):
                _rmdir(folder)


def _rmdir(folder: Path) -> None:
    """A group whose last process just ended can be busy for a moment."""
    deadline = time.monotonic() + _KILL_SECONDS
    while folder.is_dir():
        try:
            folder.rmdir()
        except OSError as error:
            if time.monotonic() > deadline:
                raise LocalHostsError(f"control group {folder} cannot be removed: {error}") from error
            time.sleep(0.05)
