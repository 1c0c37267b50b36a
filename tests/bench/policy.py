"""What the policy pack adds to a preview of 10, 100 and 1,000 resources: `python -m tests.bench.policy`."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.integration.local_site import CHECKOUT, LocalSite

EMPTY = """from pulumi_policy import PolicyPack, ResourceValidationPolicy

PolicyPack("empty", [ResourceValidationPolicy("nothing", "Asks nothing.", lambda args, report: None)])
"""
"""The peer: a pack of one policy that does nothing: what the engine and the SDK take is seen apart."""
COUNTS = (10, 100, 1000)
console = Console(highlight=False, width=110)


def cluster(folder: Path) -> tuple[LocalSite, Path]:
    """Bring up a real site on two local hosts; returns it and a file with its kubeconfig."""
    (folder / "site").mkdir()
    site = LocalSite(folder / "site", "polb", "10.216.9")
    site.create()
    console.print("bringing up the cluster that previews ask …")
    done = site.pulumi("up", "--yes", "--skip-preview")
    if done.returncode != 0:
        site.localhosts("delete")
        raise SystemExit(done.stdout + done.stderr)
    kubeconfig = folder / "kubeconfig"
    kubeconfig.touch(0o600)
    kubeconfig.write_text(site.pulumi("stack", "output", "kubeconfig", "--show-secrets").stdout)
    return site, kubeconfig


def project(folder: Path, kubeconfig: Path) -> dict[str, str]:
    """Make the project with its stack, and the empty pack; returns the environment."""
    (folder / "state").mkdir()
    shutil.copy(Path(__file__).with_name("policy_program.py"), folder / "__main__.py")
    runtime = {"name": "python", "options": {"virtualenv": sys.prefix}}
    (folder / "Pulumi.yaml").write_text(json.dumps({"name": "policy-bench", "runtime": runtime}))
    (folder / "empty").mkdir()
    (folder / "empty/__main__.py").write_text(EMPTY)
    (folder / "empty/PulumiPolicy.yaml").write_text(json.dumps({"name": "empty", "runtime": runtime}))
    environment = os.environ | {
        "PULUMI_BACKEND_URL": (folder / "state").as_uri(),
        "PULUMI_CONFIG_PASSPHRASE": "policy-bench",
        "KUBECONFIG": str(kubeconfig),
        "IMAGE": json.loads((CHECKOUT / ".artifacts/digits.json").read_text())["image"],
    }
    environment.pop("PULUMI_CONFIG_PASSPHRASE_FILE", None)
    init = ["pulumi", "stack", "init", "bench"]
    subprocess.run(init, cwd=folder, env=environment, check=True, capture_output=True)
    return environment


def preview(folder: Path, environment: dict[str, str], count: int, pack: Path | None) -> float:
    """Preview so many resources and return the seconds it took."""
    options = ("--policy-pack", str(pack)) if pack else ()
    command = ["pulumi", "preview", "--stack", "bench", "--non-interactive", "--color=never", *options]
    start = time.monotonic()
    done = subprocess.run(
        command,
        cwd=folder,
        env=environment | {"COUNT": str(count)},
        capture_output=True,
        text=True,
        check=False,
    )
    took = time.monotonic() - start
    if done.returncode != 0 or f"+ {count + 2} to create" not in done.stdout:
        raise SystemExit(done.stdout[-3000:] + done.stderr)
    return took


def figures(values: Sequence[float]) -> list[str]:
    """Minimum, median and maximum as a table shows them."""
    return [f"{figure:.2f}" for figure in (min(values), statistics.median(values), max(values))]


def measure(folder: Path, environment: dict[str, str], rounds: int, table: Table) -> None:
    """Preview without a pack, with the empty one and with ours in turn, so that drift meets all three."""
    packs = {"no pack": None, "an empty pack": folder / "empty", "this pack": CHECKOUT / "policies"}
    preview(folder, environment, COUNTS[0], packs["this pack"])  # warms what is read from disk
    for count in COUNTS:
        took: dict[str, list[float]] = {name: [] for name in packs}
        for number in range(rounds):
            console.print(f"{count} resources, round {number + 1} of {rounds} …")
            for name, pack in packs.items():
                took[name].append(preview(folder, environment, count, pack))
        for name, seconds in took.items():
            ratios = [ours / bare for ours, bare in zip(seconds, took["no pack"], strict=True)]
            shown = figures(ratios) if packs[name] else ["", "", ""]
            table.add_row(str(count), name, *figures(seconds), *shown, end_section=name == "this pack")


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.policy", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="previews of each kind and size (default: 3)")
    rounds = parser.parse_args().rounds
    table = Table(title=f"previews against a real cluster, s, {rounds} rounds, and their ratio to no pack")
    for column in ("resources", "", "min", "median", "max", "ratio: min", "median", "max"):
        table.add_column(column, justify="right" if column else "left", no_wrap=True)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        site, kubeconfig = cluster(folder)
        try:
            (folder / "bench").mkdir()
            measure(folder / "bench", project(folder / "bench", kubeconfig), rounds, table)
        finally:
            site.localhosts("delete")
    console.print(table)


if __name__ == "__main__":
    main()
