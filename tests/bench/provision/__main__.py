"""Bare hosts to Ready nodes and an unchanged second run, beside Ansible and the plain install script."""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.bench.provision.tools import PEERS, TOOLS, Phases, Project
from tests.integration.local_site import LocalSite

HALF, TENTH, GROWTH = 0.5, 0.1, 1.3
"""The goals: of a peer's install, of a peer's second run, of one host's install for three."""
READY_SECONDS = 300
console = Console(highlight=False, width=130)


@dataclass
class Figures:
    """What one tool took on so many hosts, in seconds, one entry a round; phases are of the install."""

    install: list[float] = field(default_factory=list)
    again: list[float] = field(default_factory=list)
    phases: list[Phases] = field(default_factory=list)


Results = dict[tuple[int, str], Figures]


def all_ready(site: LocalSite) -> bool:
    """Whether the API names all hosts' nodes Ready."""
    command = [*site.login(site.names[0]), "/usr/local/bin/k3s kubectl get nodes --no-headers"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    states = [line.split()[1] for line in done.stdout.splitlines()]
    return states == ["Ready"] * site.count


def timed(site: LocalSite, name: str) -> tuple[float, Phases]:
    """Run the tool until it ended and all nodes are Ready, which most tools don't wait for."""
    start = time.monotonic()
    phases = TOOLS[name].run(site)
    while not all_ready(site):
        if time.monotonic() - start > READY_SECONDS:
            raise SystemExit(f"{name}: nodes not Ready after {READY_SECONDS} s")
        time.sleep(0.2)
    return time.monotonic() - start, phases


def measure(name: str, count: int, figures: Figures) -> None:
    """One install on fresh hosts and one run more; making and deleting hosts is not timed."""
    with tempfile.TemporaryDirectory() as folder:
        site = LocalSite(Path(folder), "pv", "10.216.25", count=count)
        try:
            site.localhosts("create", "--count", str(count))
            TOOLS[name].prepare(site)
            took, phases = timed(site, name)
            figures.install.append(took)
            figures.phases.append(phases)
            figures.again.append(timed(site, name)[0])
        finally:
            site.localhosts("delete")


def spread(values: Sequence[float]) -> list[str]:
    """Minimum, median and maximum."""
    return [f"{value:.1f}" for value in (min(values), statistics.median(values), max(values))]


def comparison(results: Results, title: str) -> Table:
    """What each tool took."""
    view = Table(title=title)
    view.add_column("hosts", justify="right")
    view.add_column("tool")
    for column in ("install, s: min", "median", "max", "second run, s: min", "median", "max"):
        view.add_column(column, justify="right")
    for (count, name), figures in results.items():
        view.add_row(str(count), name, *spread(figures.install), *spread(figures.again))
    return view


def goals(results: Results) -> Table:
    """The medians' ratios beside what they should be."""
    view = Table(title="ratios of medians, and the goal")
    view.add_column("figure")
    for column in ("ratio", "goal", ""):
        view.add_column(column, justify="right")

    def add(figure: str, ours: Sequence[float], theirs: Sequence[float], goal: float | None) -> None:
        ratio = statistics.median(ours) / statistics.median(theirs)
        met = "" if goal is None else "met" if ratio <= goal else "missed"
        view.add_row(figure, f"{ratio:.2f}", "" if goal is None else f"{goal}", met)

    own = [name for name in TOOLS if name not in PEERS]
    for (count, name), figures in results.items():
        for peer in PEERS if name in own else ():
            if theirs := results.get((count, peer)):
                where = f"{name} / {peer}, hosts: {count}"
                add(f"install, {where}", figures.install, theirs.install, HALF)
                add(f"second run, {where}", figures.again, theirs.again, TENTH)
    first = min(count for count, _ in results)
    for (count, name), figures in results.items():
        if count > first:
            title = f"{first} → {count} hosts, {name}"
            add(title, figures.install, results[first, name].install, GROWTH if name in own else None)
    return view


def profile(results: Results, name: str) -> Table:
    """Where the time of this project's install goes: medians of the phases, which follow each other."""
    counts = [count for count, tool in results if tool == name]
    view = Table(title=f"phases of the install, s: {name}")
    view.add_column("phase")
    for count in counts:
        view.add_column(f"hosts: {count}", justify="right")
    ends: dict[int, float] = dict.fromkeys(counts, 0.0)
    for phase in (*Project.ENDS, Project.LAST):
        cells = []
        for count in counts:
            seen = [phases[phase] for phases in results[count, name].phases if phase in phases]
            end = max(ends[count], statistics.median(seen)) if seen else ends[count]
            cells.append(f"{end - ends[count]:.1f}" if seen else "")
            ends[count] = end
        if any(cells):
            view.add_row(phase, *cells)
    return view


def report(results: Results, loads: Sequence[float], file: Path | None) -> None:
    """Print all tables, and write the figures."""
    rounds = min(len(figures.install) for figures in results.values())
    load = f"load average when each began {min(loads):.1f} to {max(loads):.1f}"
    console.print(comparison(results, f"rounds: {rounds}, {os.cpu_count()} cores, {load}"))
    console.print(goals(results))
    for name in dict.fromkeys(tool for _, tool in results):
        if name not in PEERS:
            console.print(profile(results, name))
    if file:
        shown = [{"hosts": count, "tool": name} | asdict(found) for (count, name), found in results.items()]
        file.write_text(json.dumps({"load": list(loads), "results": shown}, indent=2) + "\n")


def main() -> None:
    """Run the benchmark; needs root and what `make model` builds. The tables come after each round."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.provision", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="installs of each kind (default: 3)")
    parser.add_argument("--hosts", type=int, nargs="+", default=(1, 3), help="sizes (default: 1 3)")
    parser.add_argument("--tools", nargs="+", default=list(TOOLS), choices=TOOLS, help="default: all")
    parser.add_argument("--json", type=Path, help="file for the figures, for docs/pictures/provision.py")
    options = parser.parse_args()
    results: Results = {(count, name): Figures() for count in options.hosts for name in options.tools}
    loads: list[float] = []
    for number in range(options.rounds):
        for count in options.hosts:
            # Every other round backwards, so that a drift of the machine meets all.
            for name in options.tools[:: -1 if number % 2 else 1]:
                loads.append(os.getloadavg()[0])
                console.print(f"round {number + 1} of {options.rounds}, hosts: {count}, {name} …")
                measure(name, count, results[count, name])
        report(results, loads, options.json)


if __name__ == "__main__":
    main()
