"""Previews of sites of 10, 100 and 1,000 hosts: time and memory, `python -m tests.bench.scale`."""

from __future__ import annotations

import argparse
import os
import re
import resource
import statistics
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import yaml
from rich.console import Console
from rich.table import Table

from tests.integration.local_site import CHECKOUT, STACK, LocalSite

HOSTS = (10, 100, 1000)
SAMPLE_S = 0.5
console = Console(highlight=False, width=120)


@dataclass(frozen=True)
class Run:
    """One preview.

    Args:
        resources: how many it would make.
        seconds: wall time of `pulumi preview`, from its start to its end.
        cpu: processor time of all of it, in seconds: on a busy machine the figure that stays.
        peak_mib: largest sum of the memory of the engine, its plugins and the program, in MiB.
        load: the machine's load average over a minute when it began.
    """

    resources: int
    seconds: float
    cpu: float
    peak_mib: float
    load: float


def configure(site: LocalSite, count: int) -> None:
    """Write a stack of one server and agents: the embedded default's settings with so many hosts."""
    file = site.project / "config" / f"Pulumi.{STACK}.yaml"
    salt = yaml.safe_load(file.read_text())["encryptionsalt"]
    config = yaml.safe_load((CHECKOUT / "stacks/Pulumi.local.yaml").read_text())["config"]
    public = site.folder / "key.pub"
    hosts = [
        {
            "name": f"edge-{number}",
            "role": "agent" if number else "server",
            "address": f"198.18.{number // 250}.{1 + number % 250}",
            "hostKey": " ".join(public.read_text().split()[:2]),
            "privateKeyFile": str(site.folder / "key"),
        }
        for number in range(count)
    ]
    (site.project / "hosts.yaml").write_text(yaml.safe_dump(hosts))
    config["edge-inference:hosts"] = "hosts.yaml"
    file.write_text(yaml.safe_dump({"encryptionsalt": salt, "config": config}))


def descendants(root: int) -> Iterator[int]:
    """A process and all that it started."""
    yield root
    for task in Path(f"/proc/{root}/task").glob("*"):
        try:
            children = (task / "children").read_text().split()
        except OSError:
            continue
        for child in children:
            yield from descendants(int(child))


def resident_mib(root: int) -> float:
    """Memory of a process and all that it started; what they share counts once."""
    total = 0
    for pid in descendants(root):
        try:
            text = Path(f"/proc/{pid}/smaps_rollup").read_text()
        except OSError:
            continue  # it ended meanwhile
        total += int(re.findall(r"^Pss:\s+(\d+)", text, re.M)[0])
    return total / 1024


def preview(site: LocalSite, policies: bool) -> Run:
    """Preview the stack with the real engine; the hosts don't exist, as a preview needs none."""
    command = ["pulumi", "preview", "--stack", STACK, "--non-interactive", "--color=never"]
    if policies:
        command += ["--policy-pack", str(CHECKOUT / "policies")]
    load = os.getloadavg()[0]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    peak = 0.0
    with (site.folder / "shown").open("w+") as shown:
        start = time.monotonic()
        process = subprocess.Popen(
            command, cwd=site.project, env=site.environment, stdout=shown, stderr=subprocess.STDOUT
        )
        ended = threading.Event()

        def wait() -> None:
            process.wait()
            ended.set()

        threading.Thread(target=wait, daemon=True).start()
        while not ended.wait(SAMPLE_S):
            peak = max(peak, resident_mib(process.pid))
        took = time.monotonic() - start
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        shown.seek(0)
        text = shown.read()
    made = re.search(r"\+ (\d+) to create", text)
    if process.returncode != 0 or made is None:
        raise SystemExit(text[-3000:])
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Run(int(made[1]), took, cpu, peak, load)


def table(runs: dict[int, list[Run]], title: str) -> Table:
    """One line per number of hosts; linear is where a further host costs the same in each line."""
    view = Table(title=title)
    columns = (
        "hosts",
        "resources",
        "s: min",
        "median",
        "max",
        "CPU s",
        "x first",
        "CPU ms a further host",
        "MiB",
    )
    for column in (*columns, "load"):
        view.add_column(column, justify="right")
    cpu = {count: statistics.median(run.cpu for run in done) for count, done in runs.items()}
    first = before = min(runs)
    for count, done in sorted(runs.items()):
        seconds, loads = [run.seconds for run in done], [run.load for run in done]
        more = count - before
        view.add_row(
            str(count),
            str(done[0].resources),
            *(f"{value:.1f}" for value in (min(seconds), statistics.median(seconds), max(seconds))),
            f"{cpu[count]:.1f}",
            f"{cpu[count] / cpu[first]:.1f}",
            f"{(cpu[count] - cpu[before]) / more * 1e3:.0f}" if more else "",
            f"{max(run.peak_mib for run in done):.0f}",
            f"{min(loads):.1f} to {max(loads):.1f}",
        )
        before = count
    return view


def main() -> None:
    """Run the benchmark; needs what `make model` builds."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.scale", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="previews of each size (default: 3)")
    parser.add_argument("--hosts", type=int, nargs="+", default=HOSTS, help="sizes (default: 10 100 1000)")
    parser.add_argument("--policies", action="store_true", help="with the policy pack")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        site = LocalSite(Path(folder), "scale", "198.18.0")
        subprocess.run(
            ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(site.folder / "key")], check=True
        )
        site.make_project()
        runs: dict[int, list[Run]] = {}
        for count in options.hosts:
            configure(site, count)
            for number in range(options.rounds):
                console.print(f"{count} hosts, round {number + 1} of {options.rounds} …")
                runs.setdefault(count, []).append(preview(site, options.policies))
    pack = "with the policy pack" if options.policies else "without policies"
    title = f"preview {pack}: {options.rounds} rounds, {os.cpu_count()} cores that others used too (load)"
    console.print(table(runs, title))


if __name__ == "__main__":
    main()
