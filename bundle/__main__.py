"""Command line: make a stack's bundle, check one that was carried to a site, install it there."""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from pathlib import Path

from rich.table import Table

from bundle.contents import BundleError, collect
from bundle.make import MANIFEST, make
from bundle.use import check, install
from policies.config import ConfigError
from stacks.settings import SettingsError
from toolchain.build import BuildError, console
from toolchain.release import Unavailable

_EXAMPLES = """examples:
  python -m bundle make --stack prod --output prod.tar
  python -m bundle verify /media/stick/prod --key stacks/bundle.pub      exit code 0 when all is well, else 1
  python -m bundle install /media/stick/prod --key stacks/bundle.pub
"""


def make_bundle(stack: str, site: str, architecture: str, output: Path) -> int:
    """Makes the bundle and says what is in it."""
    start = time.monotonic()
    with console.status("") as status:

        def progress(text: str) -> None:
            status.update(f"bundle {stack}: {time.monotonic() - start:.0f} s  {text}")

        contents = collect(stack, progress, site, architecture)
        sizes: Counter[str] = Counter()
        counts: Counter[str] = Counter()
        for path, file in contents.files.items():
            kind = path.partition("/")[0]
            sizes[kind] += file.stat().st_size
            counts[kind] += 1
        for kind in sorted(sizes):
            console.print(f"{kind:10} {counts[kind]:4} files {sizes[kind] / 1e6:8.1f} MB")
        make(contents, output, progress)
    console.print(
        f"{output}: {sizes.total() / 1e6:.1f} MB for {contents.architecture}, {MANIFEST} signed, "
        f"in {time.monotonic() - start:.0f} s; verifies with .artifacts/cosign.pub",
        soft_wrap=True,
    )
    return 0


def verify_bundle(folder: Path, key: Path) -> int:
    """Prints each file's verdict."""
    view = Table()
    for column in ("file", "MB", "verdict"):
        view.add_column(column, overflow="fold")
    bad = total = 0
    for each in check(folder, key):
        size = "" if each.size is None else f"{each.size / 1e6:.1f}"
        view.add_row(each.path, size, each.problem or "good")
        bad += each.problem is not None
        total += 1
    console.print(view)
    console.print(f"{folder}: signature good; {total} files, {bad} of them wrong", soft_wrap=True)
    return 1 if bad else 0


def install_bundle(folder: Path, key: Path) -> int:
    """Installs and says what."""
    for line in install(folder, key):
        console.print(f"installed {line}", soft_wrap=True)
    return 0


def main() -> int:
    """Runs the command line; exit codes: 0 good, 1 something is wrong, 2 wrong arguments."""
    parser = argparse.ArgumentParser(
        prog="python -m bundle",
        description="All that a site without internet needs for a stack, in one folder or tar.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True)
    making = commands.add_parser("make", help="make and sign a bundle")
    making.add_argument("--stack", required=True, help="stack of stacks/ whose settings say what is in it")
    making.add_argument("--site", default="", help="of a stack with sites: this one (default: all of them)")
    making.add_argument("--architecture", default="", help="of a stack with hosts of several: amd64 or arm64")
    making.add_argument("--output", required=True, type=Path, help="a folder, or a file that ends in .tar")
    for name, text in (
        ("verify", "compare a carried bundle with its signature and sums"),
        ("install", "verify, then put programs, plugins and the project's files in place"),
    ):
        command = commands.add_parser(name, help=text)
        command.add_argument("folder", type=Path, help="the unpacked bundle")
        command.add_argument(
            "--key", required=True, type=Path, help="public key of who makes bundles; never the bundle's own"
        )
    args = parser.parse_args()
    try:
        if args.command == "make":
            return make_bundle(args.stack, args.site, args.architecture, args.output)
        return (verify_bundle if args.command == "verify" else install_bundle)(args.folder, args.key)
    except (BundleError, BuildError, ConfigError, SettingsError, Unavailable) as error:
        console.print(f"[red]error:[/red] {error}", soft_wrap=True)
        return 1


if __name__ == "__main__":
    sys.exit(main())
