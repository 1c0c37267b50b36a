"""Measures the platform on two local hosts, and onnxruntime behind Python's HTTP server in the same run."""

from __future__ import annotations

import argparse
import json
import re
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import files
from pathlib import Path

import yaml
from kubernetes import client, config, watch
from rich.console import Console
from rich.table import Table

from tests.integration.local_site import CHECKOUT, LocalSite
from workloads.client import Client, ClientError, Digits

PODS_A_ROUND = 5
Figures = dict[str, list[float]]
console = Console(highlight=False)


def deployment(site: LocalSite, ours: Figures) -> None:
    """Bare hosts to a serving model, and the steps of it that users ask about."""
    start = time.monotonic()
    done = site.pulumi("up", "--yes", "--skip-preview")
    if done.returncode != 0:
        raise SystemExit(done.stdout + done.stderr)
    ours["bare hosts → answering, s"].append(time.monotonic() - start)
    for name, title in zip(
        site.names, ("server: install → Ready, s", "agent: install → Ready, s"), strict=True
    ):
        ours[title] += [
            float(text) for text in re.findall(rf" {name}-k3s created \(([\d.]+)s\)", done.stdout)
        ]


def pod_starts(site: LocalSite, ours: Figures) -> None:
    """From the API's acceptance of a pod to Ready; a copy of the deployment's pod, image on the node."""
    shown = site.pulumi("stack", "output", "kubeconfig", "--show-secrets").stdout
    connection = config.new_client_from_config_dict(yaml.safe_load(shown))
    api = client.CoreV1Api(connection)
    template = client.AppsV1Api(connection).read_namespaced_deployment("ai-inference-edge", "inference")
    spec = connection.sanitize_for_serialization(template.spec.template.spec)
    for number in range(PODS_A_ROUND):
        name = f"bench-{number}"
        pod = {"metadata": {"name": name}, "spec": spec | {"restartPolicy": "Never"}}
        start = time.monotonic()
        api.create_namespaced_pod("inference", pod)
        selector = f"metadata.name={name}"
        for event in watch.Watch().stream(
            api.list_namespaced_pod, "inference", field_selector=selector, timeout_seconds=60
        ):
            conditions = event["object"].status.conditions or []
            if any(item.type == "Ready" and item.status == "True" for item in conditions):
                ours["pod created → Ready, s"].append(time.monotonic() - start)
                break
        else:
            raise SystemExit(f"pod {name} not Ready after 60 s")
        api.delete_namespaced_pod(name, "inference", grace_period_seconds=0)


def requests(url: str, figures: Figures, number: int) -> None:
    """Latency of single requests on one connection."""
    with Client(url) as connection:
        took = connection.latencies(Digits.read().pixels[:1], number, number // 10)
    cuts = statistics.quantiles(took, n=100)
    figures["inference p50, ms"].append(cuts[49] * 1e3)
    figures["inference p99, ms"].append(cuts[98] * 1e3)


def memory(site: LocalSite, ours: Figures) -> None:
    """Resident memory of the process that serves: shim, WasmEdge, module and model."""
    shown = site.run(sys.executable, "-m", "status", "--stack", "test").stdout
    ours["resident memory, MiB"] += [float(text) for text in re.findall(r"in it, (\d+) MiB", shown)]


@contextmanager
def peer(figures: Figures) -> Iterator[str]:
    """The peer on a loopback port; its memory is read at the end."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    command = [sys.executable, "-m", "tests.bench.peer", str(Digits.read().model), str(port)]
    start = time.monotonic()
    with subprocess.Popen(command, cwd=CHECKOUT) as process:
        try:
            url = f"http://127.0.0.1:{port}"
            while True:
                try:
                    with Client(url) as connection:
                        connection.infer(Digits.read().pixels[:1])
                    break
                except ClientError:
                    if process.poll() is not None or time.monotonic() - start > 30:
                        raise
                    time.sleep(0.02)
            yield url
            status = Path(f"/proc/{process.pid}/status").read_text()
            figures["resident memory, MiB"].append(int(re.findall(r"VmRSS:\s+(\d+)", status)[0]) / 1024)
        finally:
            process.kill()


def image_sizes(ours: Figures, theirs: Figures) -> None:
    """The image's archive; onnxruntime and numpy, without which the peer's image cannot be."""
    title = "image, MB"
    ours[title].append((CHECKOUT / ".artifacts/digits.oci.tar").stat().st_size / 1e6)
    wheels = [file for name in ("onnxruntime", "numpy") for file in files(name) or []]
    theirs[title].append(sum(file.size or 0 for file in wheels) / 1e6)


def table(ours: Figures, theirs: Figures, rounds: int) -> Table:
    """Figures of both, and the ratio of the medians."""
    view = Table(title=f"{rounds} rounds on two local hosts; peer: onnxruntime behind Python's HTTP server")
    for column in ("figure", "n", "min", "median", "max", "peer", "peer / ours"):
        view.add_column(column, justify="left" if column == "figure" else "right")
    for name, values in ours.items():
        middle = statistics.median(values)
        other = statistics.median(theirs[name]) if name in theirs else None
        shown = [f"{value:.3g}" for value in (min(values), middle, max(values))]
        compared = ["", ""] if other is None else [f"{other:.3g}", f"{other / middle:.1f}"]
        view.add_row(name, str(len(values)), *shown, *compared)
    return view


def main() -> None:
    """Runs the benchmark; needs root and what `make model` builds."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument(
        "--rounds", type=int, default=3, help="deployments, each from bare hosts (default: 3)"
    )
    parser.add_argument("--requests", type=int, default=2000, help="timed requests a round (default: 2000)")
    parser.add_argument("--json", type=Path, help="file for the figures, for docs/pictures/bench.py")
    options = parser.parse_args()
    ours: Figures = defaultdict(list)
    theirs: Figures = defaultdict(list)
    with tempfile.TemporaryDirectory() as folder:
        site = LocalSite(Path(folder), "bench", "10.217.0")
        try:
            site.create()
            for number in range(options.rounds):
                console.print(f"round {number + 1} of {options.rounds} …")
                deployment(site, ours)
                pod_starts(site, ours)
                requests(site.output("endpoints")["ai-inference"], ours, options.requests)
                with peer(theirs) as url:
                    requests(url, theirs, options.requests)
                memory(site, ours)
                site.pulumi("destroy", "--yes", "--skip-preview").check_returncode()
        finally:
            site.localhosts("delete")
    image_sizes(ours, theirs)
    console.print(table(ours, theirs, options.rounds))
    if options.json:
        options.json.write_text(json.dumps({"ours": ours, "peer": theirs}, indent=2) + "\n")


if __name__ == "__main__":
    main()
