"""Backup: a server's datastore, saved on its host by a systemd timer, for another machine to pull."""

from __future__ import annotations

from dataclasses import dataclass

import pulumi

from components.host import EdgeHost
from components.step import HostStep

FOLDER = "/var/lib/edge-inference/backup"
"""Where backups lie on a host, mode 0600, each with its sha256 beside it."""


@dataclass(frozen=True)
class BackupArgs:
    """What is saved, and when.

    Args:
        host: a server of the cluster.
        installed: what the server's install printed; the first backup comes after it.
        schedule: when, as OnCalendar of systemd.time(7) has it: "daily", "*-*-* 02:30:00".
        keep: how many backups stay on the host.
    """

    host: EdgeHost
    installed: pulumi.Input[str]
    schedule: str = "daily"
    keep: int = 7


class Backup(HostStep):
    """Backups by schedule, the first one at once; at deletion units and the host's backups go.

    With etcd, K3s makes a snapshot. With sqlite, K3s is paused while its files are copied (pods run on),
    at most 10 s for each. Each file holds the datastore, the server's token and the node's password: who
    has it has the cluster.

    Outputs:
        stdout: file name of the newest backup when the step last ran.
    """

    def __init__(self, name: str, args: BackupArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        values: dict[str, pulumi.Input[str]] = {
            "NODE": args.host.name,
            "SCHEDULE": args.schedule,
            "KEEP": str(args.keep),
            "INSTALLED": args.installed,
        }
        super().__init__(name, "backup.sh", args.host.target, values, opts=opts)
