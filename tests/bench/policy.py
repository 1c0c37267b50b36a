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
from pathlib import Path

from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).resolve().parents[2]
PACK = ("--policy-pack", str(ROOT / "policies"))
console = Console(highlight=False)


def project(folder: Path, image: str) -> dict[str, str]:
    """Make the project with its stack and return its environment."""
    (folder / "state").mkdir()
    shutil.copy(Path(__file__).with_name("policy_program.py"), folder / "__main__.py")
    runtime = {"name": "python", "options": {"virtualenv": sys.prefix}}
    (folder / "Pulumi.yaml").write_text(json.dumps({"name": "policy-bench", "runtime": runtime}))
    environment = os.environ | {
        "PULUMI_BACKEND_URL": (folder / "state").as_uri(),
        "PULUMI_CONFIG_PASSPHRASE": "policy-bench",
        "IMAGE": image,
    }
    environment.pop("PULUMI_CONFIG_PASSPHRASE_FILE", None)
    init = ["pulumi", "stack", "init", "bench"]
    subprocess.run(init, cwd=folder, env=environment, check=True, capture_output=True)
    return environment


def preview(folder: Path, environment: dict[str, str], count: int, *options: str) -> float:
    """Preview so many resources and return the seconds it took."""
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


def figures(values: list[float], digits: int) -> list[str]:
    """Minimum, median and maximum as a table shows them."""
    return [f"{figure:.{digits}f}" for figure in (min(values), statistics.median(values), max(values))]


def main() -> None:
    """Print the table; each round previews with and without the pack in turn, so that drift meets both."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.policy", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="previews of each kind and size (default: 5)")
    rounds = parser.parse_args().rounds
    described = json.loads((ROOT / ".artifacts/digits.json").read_text())
    table = Table(title=f"preview with and without the policy pack, s, {rounds} rounds")
    for column in ("resources", "without: min", "median", "max", "with: min", "median", "max", "ratio: min"):
        table.add_column(column, justify="right")
    for column in ("median", "max"):
        table.add_column(column, justify="right")
    with tempfile.TemporaryDirectory() as name:
        environment = project(Path(name), described["image"])
        preview(Path(name), environment, 10, *PACK)  # warms what is read from disk
        for count in (10, 100, 1000):
            bare, checked = [], []
            for number in range(rounds):
                console.print(f"{count} resources, round {number + 1} of {rounds} …")
                bare.append(preview(Path(name), environment, count))
                checked.append(preview(Path(name), environment, count, *PACK))
            ratios = [with_it / without for with_it, without in zip(checked, bare, strict=True)]
            table.add_row(str(count), *figures(bare, 2), *figures(checked, 2), *figures(ratios, 2))
    console.print(table)


if __name__ == "__main__":
    main()
