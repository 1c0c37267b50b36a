"""What local hosts share with this machine because the kernel is the same: sysctls and capabilities."""

import json
from pathlib import Path

from localhosts.fleet import REGISTRY, load_all

# The kubelet and systemd set these for the whole kernel; each is put back when the last host is deleted.
# fmt: off
_SHARED = [
    "fs/file-max", "fs/inotify/max_user_instances", "fs/nr_open", "fs/protected_fifos",
    "fs/protected_hardlinks", "fs/protected_regular", "fs/protected_symlinks", "kernel/core_pattern",
    "kernel/keys/root_maxbytes", "kernel/keys/root_maxkeys", "kernel/panic", "kernel/panic_on_oops",
    "kernel/pid_max", "kernel/printk", "kernel/sysrq", "vm/overcommit_memory", "vm/panic_on_oom",
]
# fmt: on
# Each host's systemd, K3s and containerd take some, and a user has as many as one machine needs: without one,
# containerd's CRI plugin does not load ("unknown service runtime.v1.RuntimeService").
_RAISED = {"fs/inotify/max_user_instances": 1024}
_SYSCTLS = Path("/proc/sys")
_CAP_SYS_RESOURCE = 24


def save_sysctls() -> None:
    """Remember the shared sysctls as they were before the first host, and raise what many hosts exceed."""
    record = REGISTRY / "sysctls.json"
    if not record.exists():
        values = {name: (_SYSCTLS / name).read_text() for name in _SHARED if (_SYSCTLS / name).exists()}
        fresh = record.with_suffix(".new")
        fresh.write_text(json.dumps(values, indent=1))
        fresh.rename(record)
    for name, least in _RAISED.items():
        if int((_SYSCTLS / name).read_text()) < least:
            (_SYSCTLS / name).write_text(str(least))


def restore_sysctls() -> None:
    """Put the shared sysctls back, once no fleet is left."""
    record = REGISTRY / "sysctls.json"
    if load_all() or not record.exists():
        return
    for name, value in json.loads(record.read_text()).items():
        if (_SYSCTLS / name).read_text() != value:
            (_SYSCTLS / name).write_text(value)
    record.unlink()


def lacks_sys_resource() -> bool:
    """Whether even root cannot lower an OOM score here, as in some virtual machines and containers."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("CapEff:"):
            return not int(line.split()[1], 16) >> _CAP_SYS_RESOURCE & 1
    return False
