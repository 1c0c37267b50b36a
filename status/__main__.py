"""Command line: a stack's nodes, pods and what runs them."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from kubernetes.client.exceptions import ApiException
from rich.console import Console
from rich.table import Table
from urllib3.exceptions import HTTPError

from stacks.settings import SettingsError
from status.cluster import Pod, nodes, pods
from status.runtime import Process, processes
from status.stack import Site, StatusError, read_stack

console = Console(highlight=False, soft_wrap=True)


def _table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    view = Table(title=title, title_justify="left")
    for column in columns:
        view.add_column(column, overflow="fold")
    for row in rows:
        view.add_row(*row)
    console.print(view)


def _host_processes(site: Site, found: Sequence[Pod]) -> dict[str, Process]:
    running: dict[str, Process] = {}
    for host in site.settings.hosts:
        containers = [pod.container for pod in found if pod.node == host.name and pod.container]
        if containers and not host.gone:
            running |= processes(host, containers)
    return running


def show(site: Site) -> bool:
    """Prints a site's nodes, pods and processes.

    Returns:
        Whether all nodes and pods are ready and WasmEdge runs every pod.
    """
    listed, found = nodes(site), pods(site)
    running = _host_processes(site, found)
    if site.name:
        console.print(f"site {site.name}")
    _table(
        "nodes",
        ["node", "ready", "kubelet", "containerRuntimeVersion"],
        [[n.name, "yes" if n.ready else "no", n.kubelet, n.container_runtime] for n in listed],
    )
    rows = []
    for pod in found:
        state = "no" if pod.start_seconds is None else f"after {pod.start_seconds:.0f} s"
        rows.append([pod.name, pod.node, state, pod.runtime_class])
    _table("pods", ["pod", "node", "ready", "runtimeClassName"], rows)
    for pod in found:
        if process := running.get(pod.container):
            console.print(
                f"{pod.name}: process {process.pid} on {pod.node} is {process.program}"
                f" with {process.library or 'no WasmEdge library'} in it, {process.rss_mib:.0f} MiB resident"
            )
    for version in sorted({process.version for process in running.values()}):
        console.print(f"on the hosts: {version}")
    for name, url in site.endpoints.items():
        console.print(f"{name}: {url}")
    by_wasmedge = all(pod.container in running and running[pod.container].library for pod in found)
    return all(node.ready for node in listed) and all(pod.ready for pod in found) and by_wasmedge


def main() -> int:
    """Runs the command line; exit codes: 0 all ready, 1 not so or not known, 2 wrong arguments."""
    parser = argparse.ArgumentParser(
        prog="python -m status",
        description="What a stack runs: nodes, pods, and on each host the process that serves them.",
        epilog="example: python -m status --stack local",
    )
    parser.add_argument("--stack", default="local", help="the stack (default: local)")
    options = parser.parse_args()
    try:
        return 0 if all([show(site) for site in read_stack(options.stack)]) else 1
    except (StatusError, SettingsError) as error:
        console.print(f"error: {error}")
    except (ApiException, HTTPError) as error:
        console.print(f"error: the cluster of stack {options.stack} does not answer: {error}")
    return 1


if __name__ == "__main__":
    sys.exit(main())
