"""What runs a container, read on its host from /proc: the proof that WasmEdge serves the model."""

from __future__ import annotations

from dataclasses import dataclass

from stacks.settings import HostSettings
from status.ssh import run

# For each container id: the process containerd started, its program, the WasmEdge library it has mapped.
_SCRIPT = r"""
set -eu
for id in "$@"; do
    pid=$(k3s ctr -n k8s.io task ls | awk -v id="$id" '$1 == id { print $2 }')
    [ -n "$pid" ] || continue
    program=$(readlink "/proc/$pid/exe")
    library=$(grep -o '/[^ ]*libwasmedge[^ ]*' "/proc/$pid/maps" | sort -u | head -n 1)
    rss=$(awk '/^VmRSS/ { print $2 }' "/proc/$pid/status")
    printf '%s\t%s\t%s\t%s\t%s\t%s\n' "$id" "$pid" "$program" "$library" "$rss" "$(cat /opt/wasmedge/VERSION)"
done
"""


@dataclass(frozen=True)
class Process:
    """A container's process.

    Args:
        pid: its number on the host.
        program: the file it runs.
        library: the WasmEdge library mapped into it.
        rss_mib: its resident memory in MiB.
        version: what the host's WasmEdge folder says of itself.
    """

    pid: int
    program: str
    library: str
    rss_mib: float
    version: str


def processes(host: HostSettings, containers: list[str]) -> dict[str, Process]:
    """The processes of containers on a host, by container id.

    Raises:
        StatusError: the host can't be reached, or its key is another than the pinned one.
        SettingsError: a key file that the settings name can't be read.
    """
    done = run(host, _SCRIPT, containers)
    found = {}
    for line in done.decode().splitlines():
        container, pid, program, library, rss, version = line.split("\t")
        found[container] = Process(int(pid), program, library, int(rss) / 1024, version)
    return found
