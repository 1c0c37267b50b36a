"""Command line: the table of parts, and building what is missing."""

from __future__ import annotations

import argparse
import sys

from rich.table import Table

from toolchain.artifacts import assemble
from toolchain.build import BuildError, cache_lock, console, install_plugins, link_programs, provide
from toolchain.manifest import Part, load
from toolchain.release import Refused, Unavailable


def table(parts: list[Part]) -> Table:
    """Part, wanted version, what was found and where it comes from."""
    view = Table(title="toolchain")
    for column in ("part", "wanted", "found", "from", "pinned by"):
        view.add_column(column, overflow="fold")
    for part in parts:
        vendor = part.found is not None and part.found == part.release_key
        source = " ".join(release.url for release in part.release) if vendor else part.source
        lock = "toolchain/releases.lock" if vendor else f"toolchain/{part.name}/{part.lock}"
        found = part.found or ("on demand" if part.on_demand else "missing")
        view.add_row(part.name, part.version, found, source, lock)
    return view


def main() -> int:
    """Runs the command line; exit codes: 0 done, 1 a build failed, 2 wrong arguments."""
    parser = argparse.ArgumentParser(
        prog="python -m toolchain",
        description="Finds the platform's parts, and fetches or builds what is missing. Without a command: "
        "the table of parts. pin: write the sums that vendors publish into releases.lock.",
        epilog="EDGE_PARTS: auto (the default: a vendor's release where it can be reached, else a build), "
        "vendor or build. example: EDGE_PARTS=build python -m toolchain build pulumi",
    )
    parser.add_argument("command", nargs="?", choices=["table", "build", "pin"], default="table")
    parser.add_argument("parts", nargs="*", help="parts to fetch or build (default: all but those on demand)")
    args = parser.parse_args()
    root, parts = load()
    unknown = set(args.parts) - {part.name for part in parts}
    if unknown:
        parser.error(
            f"no such part: {', '.join(sorted(unknown))}; there are {', '.join(p.name for p in parts)}"
        )
    if args.command == "pin":
        try:
            for release in (release for part in parts for release in part.release):
                console.print(f"{release.pin()}  {release.url}", soft_wrap=True)
        except (Refused, Unavailable) as error:
            console.print(f"[red]error:[/red] {error}", soft_wrap=True)
            return 1
        return 0
    if args.command == "build":
        try:
            with cache_lock():
                for part in parts:
                    if part.name in args.parts or not (args.parts or part.on_demand):
                        provide(root, part)
                link_programs(parts)
                install_plugins(parts)
                assemble(parts)
        except BuildError as error:
            console.print(f"[red]error:[/red] {error}", soft_wrap=True)
            return 1
    console.print(table(parts))
    return 0


if __name__ == "__main__":
    sys.exit(main())
