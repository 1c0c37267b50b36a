"""Command line: a stack's backups looked at, pulled off the servers, and laid ready for a restore."""

from __future__ import annotations

import argparse
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

from backup import folder, host
from stacks.settings import HostSettings, SettingsError
from stacks.sites import SiteSettings
from status.stack import StatusError, read_settings

_EXAMPLES = """examples:
  python -m backup status --stack prod                          newest backup of each server
  python -m backup pull --stack prod --to /srv/backup           fetch what is new; for a timer, off the node
  python -m backup restore --stack prod --host camera-1 --from /srv/backup/backup-camera-1-….tar.gz
                                                                then set hosts[].rebuilt, and pulumi up
"""


def _parser() -> argparse.ArgumentParser:
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--stack", default="local", help="the stack (default: local)")
    parser = argparse.ArgumentParser(
        prog="python -m backup",
        description="Backups of a stack's cluster. Exit codes: 0 all well, 1 a fault, 2 wrong arguments.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    verbs = parser.add_subparsers(dest="verb", required=True)
    verbs.add_parser("status", parents=[common], help="newest backup of each server, and what is wrong")
    pull = verbs.add_parser("pull", parents=[common], help="fetch what is not yet in a folder")
    pull.add_argument("--to", type=Path, required=True, help="the folder, on a machine that is no node")
    pull.add_argument("--keep", type=int, default=30, help="how many of each server stay (default: 30)")
    restore = verbs.add_parser(
        "restore", parents=[common], help="lay a backup on a server that was set up anew"
    )
    restore.add_argument("--host", required=True, help="the server's name in the settings")
    restore.add_argument("--from", dest="file", type=Path, required=True, help="a backup that was pulled")
    return parser


def _servers(sites: list[SiteSettings]) -> list[tuple[HostSettings, int]]:
    """Servers with backups, of all sites, and how old their newest may be, in hours."""
    found = [
        (host, site.settings.backup.max_age_hours)
        for site in sites
        for host in site.settings.hosts
        if site.settings.backup and host.role == "server" and not host.gone
    ]
    if not found:
        raise StatusError("backup is not among the stack's settings: add backup: {}, then pulumi up")
    return found


def _fault(state: host.State, max_age_hours: int) -> str:
    """What is wrong with a server's backups; empty: nothing."""
    if not state.kept:
        return "no backup"
    age = datetime.now(UTC) - host.made(state.kept[-1].name)
    if age > timedelta(hours=max_age_hours):
        return f"the newest is {age.total_seconds() / 3600:.0f} h old, backup.maxAgeHours is {max_age_hours}"
    if state.result != "success":
        return f"the last run ended with {state.result}: journalctl -u edge-inference-backup"
    return "" if state.timer == "active" else f"its timer is {state.timer}: pulumi up, or start it"


def _each(sites: list[SiteSettings], options: argparse.Namespace) -> bool:
    """Asks all servers, one that does not answer as well; returns whether all is well."""
    well = True
    for server, max_age_hours in _servers(sites):
        try:
            state = host.state(server)
            if options.verb == "pull":
                _pull(server, state, options)
            fault = _fault(state, max_age_hours)
            newest = state.kept[-1].name if state.kept else "none"
        except StatusError as error:
            newest, fault = "not known", str(error)
        print(f"{server.name}: {newest}{f': error: {fault}' if fault else ''}")
        well = well and not fault
    return well


def _pull(server: HostSettings, state: host.State, options: argparse.Namespace) -> None:
    options.to.mkdir(mode=0o700, parents=True, exist_ok=True)
    for kept in state.kept[-options.keep :]:
        if not (options.to / kept.name).exists():
            folder.keep(options.to, kept, host.read(server, kept))
            print(f"{server.name}: {kept.name} is in {options.to}")
    folder.prune(options.to, server.name, options.keep)


def _restore(sites: list[SiteSettings], options: argparse.Namespace) -> None:
    found = {server.name: server for server, _ in _servers(sites)}
    if options.host not in found:
        raise StatusError(f"--host {options.host}: want a server of the stack: {', '.join(found)}")
    data, sha256 = folder.read(options.file)
    host.lay(found[options.host], data, sha256)
    print(
        f"{options.file.name} lies on {options.host}. Now write another text, such as today's date, into\n"
        f"hosts[].rebuilt of {options.host}, and run: pulumi up --stack {options.stack}"
    )


def main() -> int:
    """Runs the command line and returns its exit code."""
    parser = _parser()
    options = parser.parse_args()
    if options.verb == "pull" and options.keep < 1:
        parser.error("--keep: 1 at least")
    try:
        sites = read_settings(options.stack)
        if options.verb != "restore":
            return 0 if _each(sites, options) else 1
        _restore(sites, options)
    except (StatusError, SettingsError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
