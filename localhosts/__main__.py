"""The command `python -m localhosts`."""

import argparse
import ipaddress
import os
import subprocess
import sys
from pathlib import Path

from localhosts import cgroups, disk, machine, operations
from localhosts.fleet import Fleet, Host, check_names, load_all, locked
from localhosts.shell import LocalHostsError, require_machine

_CHECKOUT = Path(__file__).resolve().parent.parent
_EXAMPLES = """examples:
  python -m localhosts create                       two hosts: edge-1 10.213.0.11, edge-2 10.213.0.12
  python -m localhosts create --host edge-3=10.213.0.13 --memory-mib 512
  python -m localhosts create --prefix lab --subnet 10.214.0.0/24     a second set beside the first
  python -m localhosts status                       exit code 0 when all are up and reachable, else 1
  python -m localhosts stop edge-2                  pull its plug; `start edge-2` boots it again
  python -m localhosts reset                        fresh disks, same keys
  python -m localhosts delete                       take everything away
"""


def _parser() -> argparse.ArgumentParser:
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--prefix", default="edge", help="name of the set of hosts (default: edge)")
    common.add_argument("--subnet", default="10.213.0.0/24", help="their network (default: 10.213.0.0/24)")
    keys = str(_CHECKOUT / ".state/hosts")
    common.add_argument("--state", default=keys, help="folder for keys (default: .state/hosts)")
    parser = argparse.ArgumentParser(
        prog="python -m localhosts", description="Make edge hosts on this machine and take them away.",
        epilog=_EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    verbs = parser.add_subparsers(dest="verb", required=True)
    create = verbs.add_parser("create", parents=[common], help="make and boot the hosts that are missing")
    create.add_argument("--count", type=int, default=2, help="hosts PREFIX-1 to PREFIX-COUNT (default: 2)")
    create.add_argument("--host", action="append", default=[], metavar="NAME=ADDRESS", help="a further host")
    create.add_argument(
        "--memory-mib", type=int, default=0, help="memory of hosts made now (default: no limit)"
    )
    verbs.add_parser("delete", parents=[common], help="remove the hosts and all that belongs to them")
    verbs.add_parser("status", parents=[common], help="print a table of the hosts")
    texts = {"start": "boot a host", "stop": "pull a host's plug", "logs": "print a host's logs"}
    for verb, text in texts.items():
        verbs.add_parser(verb, parents=[common], help=text).add_argument("name")
    verbs.add_parser("reset", parents=[common], help="fresh disks").add_argument("name", nargs="*")
    return parser


def _wanted_hosts(options: argparse.Namespace) -> list[Host]:
    if not 0 <= options.count <= 20:
        raise LocalHostsError(f"--count {options.count}: 0 to 20")
    if options.memory_mib and options.memory_mib < 64:
        raise LocalHostsError(f"--memory-mib {options.memory_mib}: 64 at least, or systemd does not boot")
    network = ipaddress.ip_network(options.subnet)
    hosts = [
        Host(f"{options.prefix}-{number}", str(network[10 + number]), options.memory_mib)
        for number in range(1, min(options.count, network.num_addresses - 12) + 1)
    ]
    for text in options.host:
        name, sign, address = text.partition("=")
        if not sign:
            raise LocalHostsError(f"--host {text}: NAME=ADDRESS, for example edge-3=10.213.0.13")
        hosts.append(Host(name, address, options.memory_mib))
    return hosts


def _print_status(fleet: Fleet) -> int:
    from rich.console import Console
    from rich.table import Table

    table = Table("name", "address", "state", "ssh", "memory MiB", "uptime s")
    well = bool(fleet.hosts)
    for host in fleet.hosts:
        uptime = machine.uptime_seconds(fleet, host)
        ssh = uptime is not None and machine.reachable(fleet, host)
        well = well and ssh
        used = str(cgroups.memory_mib(fleet.prefix, host.name)) if uptime is not None else "-"
        memory = f"{used} of {host.memory_mib}" if host.memory_mib else used
        state = "off" if uptime is None else "up"
        seconds = "-" if uptime is None else f"{uptime:.0f}"
        table.add_row(host.name, host.address, state, "reachable" if ssh else "no", memory, seconds)
    Console().print(table if fleet.hosts else f"no local hosts of prefix {fleet.prefix}; `create` makes them")
    return 0 if well else 1


def _print_logs(fleet: Fleet, host: Host) -> int:
    console = disk.folder(fleet, host) / "console.log"
    if console.exists():
        print(console.read_text(errors="replace")[-4000:])
    journal = disk.root(fleet, host) / "var/log/journal"
    show = ["journalctl", "--no-pager", "--lines=200", f"--directory={journal}"]
    return subprocess.run(show, check=False).returncode


def _do(options: argparse.Namespace) -> int:
    check_names(options.prefix, options.subnet)
    require_machine()
    cache = Path(os.environ.get("EDGE_CACHE") or Path.home() / ".cache/edge-inference").resolve()
    state = str(Path(options.state).resolve())
    empty = Fleet(options.prefix, options.subnet, str(_CHECKOUT), str(cache), state)
    fleet = load_all().get(options.prefix, empty)
    if options.verb == "status":
        return _print_status(fleet)
    if options.verb == "logs":
        return _print_logs(fleet, fleet.host(options.name))
    with locked():
        fleet = load_all().get(options.prefix, empty)
        if options.verb == "create":
            operations.create(empty, _wanted_hosts(options))
        elif options.verb == "delete":
            operations.delete(fleet)
        elif options.verb == "reset":
            operations.reset(fleet, [fleet.host(name) for name in options.name] or fleet.hosts)
        elif options.verb == "start":
            operations.start(fleet, fleet.host(options.name))
        else:
            operations.stop(fleet, fleet.host(options.name))
    return 0


def main() -> int:
    """Run the command line and return its exit code."""
    try:
        return _do(_parser().parse_args())
    except LocalHostsError as error:
        print(f"localhosts: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("localhosts: interrupted; run the same command again to go on", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
