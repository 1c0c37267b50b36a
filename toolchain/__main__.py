"""Command line: the table of parts, and building what is missing."""

from __future__ import annotations

import argparse
import sys

from rich.table import Table

from toolchain.artifacts import assemble
from toolchain.build import BuildError, build, cache_lock, console, install_plugins, link_programs
from toolchain.manifest import Part, load


def table(parts: list[Part]) -> Table:
    """Part, wanted version, what was found and where it comes from."""
    view = Table(title="toolchain")
    for column in ("part", "wanted", "found", "from", "pinned by"):
        view.add_column(column, overflow="fold")
    for part in parts:
        found = part.key if part.built else "missing"
        view.add_row(part.name, part.version, found, part.source, f"toolchain/{part.name}/{part.lock}")
    return view


def main() -> int:
    """Runs the command line; exit codes: 0 done, 1 a build failed, 2 wrong arguments."""
    parser = argparse.ArgumentParser(
        prog="python -m toolchain",
        description="Finds and builds the platform's parts. Without a command: the table of parts.",
        epilog="example: python -m toolchain build pulumi",
    )
    parser.add_argument("command", nargs="?", choices=["table", "build"], default="table")
    parser.add_argument("parts", nargs="*", help="parts to build (default: all)")
    args = parser.parse_args()
    root, parts = load()
    unknown = set(args.parts) - {part.name for part in parts}
    if unknown:
        parser.error(
            f"no such part: {', '.join(sorted(unknown))}; there are {', '.join(p.name for p in parts)}"
        )
    if args.command == "build":
        try:
            with cache_lock():
                for part in parts:
                    if not args.parts or part.name in args.parts:
                        build(root, part)
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
