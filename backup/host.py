"""What is done on a server: its backups listed, read, and one laid there for the next `up`."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from components.backup import FOLDER
from stacks.settings import HostSettings
from status.ssh import run
from status.stack import StatusError

_LIST = f"""
systemctl show -P Result edge-inference-backup.service
systemctl show -P ActiveState edge-inference-backup.timer
cd {FOLDER} 2>/dev/null || exit 0
for file in backup-*.tar.gz; do if [ -e "$file" ]; then cat "$file.sha256"; fi; done
"""
_READ = f'exec cat "{FOLDER}/$1"'
# Where K3s has data, a restore would throw them away.
_LAY = """
set -eu
folder=/var/lib/edge-inference/restore
if [ -e /var/lib/rancher/k3s/server/db ]; then
    echo "K3s has data here, in /var/lib/rancher/k3s/server/db: a restore is for a host set up anew" >&2
    exit 1
fi
umask 077
mkdir -p "$folder"
chmod 755 "${folder%/*}"
cat >"$folder/part"
if [ "$(sha256sum "$folder/part" | cut -d' ' -f1)" != "$1" ]; then
    echo "the file arrived damaged: try again" >&2
    exit 1
fi
mv "$folder/part" "$folder/backup.tar.gz"
"""


@dataclass(frozen=True)
class Kept:
    """A backup on its server.

    Args:
        name: its file name, with host, time and kind.
        sha256: its sum, in hex.
    """

    name: str
    sha256: str


@dataclass(frozen=True)
class State:
    """A server's backups.

    Args:
        result: how systemd's last run ended: "success".
        timer: "active" while further ones are scheduled.
        kept: its backups, the newest last.
    """

    result: str
    timer: str
    kept: list[Kept]


def state(host: HostSettings) -> State:
    """Asks a server.

    Raises:
        StatusError: it can't be reached.
    """
    result, timer, *lines = run(host, _LIST, []).decode().splitlines()
    sums = [line.split() for line in lines]
    return State(result, timer, [Kept(name, sha256) for sha256, name in sums])


def read(host: HostSettings, kept: Kept) -> bytes:
    """A backup's bytes.

    Raises:
        StatusError: it can't be read.
    """
    return run(host, _READ, [kept.name])


def lay(host: HostSettings, data: bytes, sha256: str) -> None:
    """Puts a backup where the next `up` takes it from.

    Raises:
        StatusError: K3s has data there, or the file did not arrive whole.
    """
    run(host, _LAY, [sha256], data)


def made(name: str) -> datetime:
    """When a backup was made, as its file's name says.

    Raises:
        StatusError: the name is no backup's.
    """
    try:
        return datetime.strptime(name.rsplit("-", 2)[1], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    except (IndexError, ValueError):
        raise StatusError(f"{name}: not the name of a backup, such as backup-NODE-TIME-etcd.tar.gz") from None
