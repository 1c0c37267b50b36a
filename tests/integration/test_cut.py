"""The SSH connection is cut in the middle of each step, at `up` and at `destroy`; the next one goes on."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from components.step import steps
from tests.integration.line import Line
from tests.integration.local_site import CHECKOUT, STACK, LocalSite

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="local hosts need root: run the tests with sudo"),
    pytest.mark.slow,
]
HOST = "sc-1"
APPLIED = ("preflight", "artifacts", "wasmedge", "k3s", "kubeconfig", "node", "model", "backup")
REMOVED = ("node", "k3s", "wasmedge", "preflight")
LATER = {"wasmedge apply": 0.3, "k3s apply": 2.0, "k3s remove": 1.0, "model apply": 0.5}
"""Of what takes seconds: how far into it the line is cut, in s."""
ELSEWHERE = {
    "gpu-cdi": "a host with a GPU",
    "gpu-packages": "a host with a GPU",
    "gpu": "a host with a GPU",
    "host-key": "test_rotation.py",
    "secrets": "the hardened profile",
    "stage": "runs beside the engine; artifacts is its other half",
}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalSite]:
    made = LocalSite(tmp_path_factory.mktemp("sc"), "sc", "10.216.28", count=1)
    try:
        made.create()
        yield made
    finally:
        made.localhosts("delete")


@pytest.fixture(scope="module")
def line(site: LocalSite) -> Iterator[Line]:
    """All connections of the stack go through it."""
    made = Line(site.address(HOST))
    yield made
    made.close()


def configure(site: LocalSite, line: Line, rebuilt: str) -> None:
    """One server with the model and backups; another text in `rebuilt` runs all of its steps again."""
    stack = yaml.safe_load((CHECKOUT / "stacks/Pulumi.local.yaml").read_text())["config"]
    services = [stack["edge-inference:services"][0] | {"replicas": 1}]
    through = {"address": "127.0.0.1", "port": line.port, "nodeIp": site.address(HOST)}
    site.configure(hosts=[site.host(1, "server", rebuilt=rebuilt, **through)], services=services, backup={})


@pytest.fixture(scope="module")
def before(site: LocalSite) -> list[str]:
    return site.traces(HOST)


def test_each_step_is_cut_here_or_elsewhere() -> None:
    named = {f"{name}.sh" for name in (*APPLIED, *ELSEWHERE)}
    assert named >= set(steps()), "a step that nothing cuts"


def processes() -> set[str]:
    return {entry.name for entry in Path("/proc").iterdir() if entry.name.isdecimal()}


def at_work(step: str, action: str, others: set[str]) -> bool:
    """The host runs the step: its processes are this machine's, too, in the host's own control groups."""
    words = f"\0{step}.sh\0{action}\0".encode()
    for pid in processes() - others:
        try:
            if words in Path(f"/proc/{pid}/cmdline").read_bytes():
                return f"/sc/{HOST}" in Path(f"/proc/{pid}/cgroup").read_text()
        except OSError:
            continue  # it ended
    return False


def cut_in(site: LocalSite, line: Line, step: str, action: str, command: str) -> str:
    """Runs pulumi, cuts the line while the host does the step, and returns what was printed."""
    others = processes()
    words = [command, "--yes", "--skip-preview", "--stack", STACK, "--non-interactive"]
    engine = subprocess.Popen(
        ["pulumi", *words],
        cwd=site.project,
        env=site.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    while not at_work(step, action, others):
        assert engine.poll() is None, engine.communicate()[0]
    time.sleep(LATER.get(f"{step} {action}", 0))
    line.cut()
    line.rate = 0
    text = engine.communicate(timeout=600)[0]
    print(text)
    assert engine.returncode != 0, f"{step} was not cut"
    return text


@pytest.mark.parametrize("step", APPLIED)
def test_cut_at_up(site: LocalSite, line: Line, before: list[str], step: str) -> None:
    """Each `up` gets as far as the step that is cut; the resource is named."""
    configure(site, line, f"before {step}")
    # What takes a hundredth of a second is caught while it is read.
    line.rate = 3000 if step == "kubeconfig" else 0
    text = cut_in(site, line, step, "apply", "up")
    resource = "ai-inference" if step == "model" else step
    assert f"{HOST}-{resource}" in text.split("Diagnostics:")[1]


def test_the_next_up_makes_it_whole(site: LocalSite, line: Line) -> None:
    done = site.pulumi("up", "--yes", "--skip-preview")
    assert done.returncode == 0, done.stdout + done.stderr
    site.pulumi("refresh", "--yes", "--clear-pending-creates").check_returncode()
    again = site.pulumi("preview", "--expect-no-changes")
    assert again.returncode == 0, again.stdout + again.stderr
    asked = site.run("python", "-m", "workloads", "query", site.output("endpoints")["ai-inference"])
    assert asked.returncode == 0, asked.stdout + asked.stderr


@pytest.mark.parametrize("step", REMOVED)
def test_cut_at_destroy(site: LocalSite, line: Line, step: str) -> None:
    cut_in(site, line, step, "remove", "destroy")


def test_the_next_destroy_leaves_the_host_as_it_was(site: LocalSite, line: Line, before: list[str]) -> None:
    began = time.monotonic()
    done = site.pulumi("destroy", "--yes", "--skip-preview")
    assert done.returncode == 0, done.stdout + done.stderr
    print(f"{time.monotonic() - began:.0f} s")
    assert sorted(set(site.traces(HOST)) ^ set(before)) == []
