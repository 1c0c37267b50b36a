"""K3s upgraded across a minor version on real hosts: refused, rolled back, stopped, gone on with, cut."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import time
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from tests.integration.asker import Asker
from tests.integration.local_site import CHECKOUT, STACK, LocalSite
from tests.integration.test_ha import KUBECTL, Watch, restarted, until
from toolchain.manifest import load

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="local hosts need root: run the tests with sudo"),
    pytest.mark.slow,
]
PARTS = {part.name: part for part in load()[1]}
OLD, NEW = PARTS["k3s-previous"].version, PARTS["k3s"].version
SNAPSHOTS = "/var/lib/rancher/k3s/server/db/snapshots"
SERVER, FIRST, LAST = "up-1", "up-2", "up-3"
BROKEN = f'#!/bin/sh\nif [ "$1" = --version ]; then echo "k3s version {NEW} (broken)"; else exit 1; fi\n'


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalSite]:
    made = LocalSite(tmp_path_factory.mktemp("upgrade"), "up", "10.216.18", count=3)
    try:
        made.create()
        yield made
    finally:
        made.localhosts("delete")


@pytest.fixture(scope="module")
def before(site: LocalSite) -> dict[str, list[str]]:
    """What is on the hosts before the first `up`."""
    return {name: site.traces(name) for name in site.names}


@pytest.fixture(scope="module")
def up(site: LocalSite, before: dict[str, list[str]]) -> None:
    """A server with etcd and two agents, two pods of the model, all with the old K3s."""
    configure(site, manifest(site, old()))
    done = site.pulumi("up", "--yes", "--skip-preview")
    assert done.returncode == 0, done.stdout + done.stderr
    assert versions(site) == dict.fromkeys(site.names, OLD)


def old() -> dict[str, str]:
    """The manifest's entry of the K3s to upgrade from."""
    file = PARTS["k3s-previous"].output / "k3s"
    with file.open("rb") as handle:
        digest = hashlib.file_digest(handle, "sha256").hexdigest()
    return {"source": str(file), "version": OLD, "sha256": digest}


def manifest(site: LocalSite, k3s: dict[str, str] | None = None) -> str:
    """Writes a manifest like the checkout's, with another K3s; returns its path."""
    content = json.loads((CHECKOUT / ".artifacts/manifest.json").read_text())
    for entry in content["artifacts"].values():
        entry["source"] = str(CHECKOUT / ".artifacts" / entry["source"])
    content["artifacts"]["k3s"] |= k3s or {}
    file = site.folder / "manifest.json"
    file.write_text(json.dumps(content))
    return str(file)


AGENTS = ("server", "agent", "agent")
ALONE = ("server",)
SERVERS = ("server", "server", "server")


def configure(site: LocalSite, artifacts: str, roles: Sequence[str] = AGENTS, **cluster: Any) -> None:
    """Settings with the first hosts in these roles."""
    site.configure(
        artifacts={"manifest": artifacts},
        hosts=[site.host(number, role) for number, role in enumerate(roles, 1)],
        cluster={"waitSeconds": 240, "datastore": "etcd" if len(roles) > 1 else "sqlite"} | cluster,
        admission={"enabled": False},  # its API is not in the old version
    )


def refused(site: LocalSite) -> str:
    """Runs an `up` that must fail, and returns what it printed."""
    start = time.monotonic()
    done = site.pulumi("up", "--yes", "--skip-preview")
    text = done.stdout + done.stderr
    print(f"{text}\nrefused after {time.monotonic() - start:.0f} s")
    assert done.returncode != 0
    assert "Traceback" not in text
    return text


def upgraded(site: LocalSite) -> str:
    """Runs an `up` that must succeed, and returns what it printed."""
    start = time.monotonic()
    done = site.pulumi("up", "--yes", "--skip-preview")
    text = done.stdout + done.stderr
    print(f"{text}\n`up` took {time.monotonic() - start:.0f} s")
    assert done.returncode == 0, text
    return text


def nodes(site: LocalSite) -> list[dict[str, Any]]:
    """The nodes, as the API on the server has them."""
    found: list[dict[str, Any]] = json.loads(site.ssh(SERVER, f"{KUBECTL} get nodes -o json"))["items"]
    return found


def versions(site: LocalSite) -> dict[str, str]:
    """Version of each node's kubelet."""
    return {node["metadata"]["name"]: node["status"]["nodeInfo"]["kubeletVersion"] for node in nodes(site)}


def cordoned(site: LocalSite) -> list[str]:
    """Nodes that take no pods."""
    return [node["metadata"]["name"] for node in nodes(site) if node["spec"].get("unschedulable")]


def starts(site: LocalSite) -> dict[str, float]:
    """When K3s was last started on each host."""
    return {name: restarted(site, name) for name in site.names}


@pytest.mark.parametrize(
    ("version", "says"),
    [
        ("v1.28.9+k3s1", f"K3s does not go back to an older version: name {OLD} or newer"),
        ("v1.31.2+k3s1", "a server goes up one minor version at a time: name a v1.30 first"),
        ("v1.33.0+k3s1", "an agent may be three minor versions older than its servers at most"),
    ],
)
def test_versions_that_cannot_follow_are_refused(site: LocalSite, up: None, version: str, says: str) -> None:
    """By what the manifest says, on every host, before one is changed."""
    began = starts(site)
    staged = {name: site.ssh(name, "ls /var/lib/edge-inference/artifacts") for name in site.names}
    configure(site, manifest(site, {"version": version}))
    text = refused(site)
    assert says in text
    assert f"K3s {OLD} found, artifact k3s is {version}" in text
    assert starts(site) == began
    assert {name: site.ssh(name, "ls /var/lib/edge-inference/artifacts") for name in site.names} == staged
    assert versions(site) == dict.fromkeys(site.names, OLD)


def test_a_drain_that_a_budget_forbids_ends_in_time_and_changes_nothing(site: LocalSite, up: None) -> None:
    budget = "-n kube-system pdb hold"
    site.ssh(SERVER, f"{KUBECTL} create {budget} --selector=k8s-app=kube-dns --min-available=1")
    began = starts(site)
    configure(site, manifest(site), upgrade={"drainSeconds": 20})
    text = refused(site)
    site.ssh(SERVER, f"{KUBECTL} delete {budget}")
    assert f"node {SERVER} could not be drained (cluster.upgrade.drainSeconds: 20)" in text
    assert f"K3s {OLD} runs on" in text
    assert starts(site) == began
    assert cordoned(site) == []


def test_a_node_that_does_not_come_back_gets_the_previous_k3s_again(site: LocalSite, up: None) -> None:
    broken = site.folder / "k3s-broken"
    broken.write_text(BROKEN)
    digest = hashlib.sha256(BROKEN.encode()).hexdigest()
    began = starts(site)
    configure(site, manifest(site, {"source": str(broken), "version": NEW, "sha256": digest}), waitSeconds=60)
    text = refused(site)
    assert f"K3s {NEW} did not come back on node {SERVER}" in text
    assert f"rolled back to {OLD}" in text
    assert versions(site) == dict.fromkeys(site.names, OLD)
    assert {node["metadata"]["name"] for node in nodes(site) if ready(node)} == set(site.names)
    assert cordoned(site) == []
    now = starts(site)
    assert now[SERVER] > began[SERVER]
    assert {name: now[name] for name in (FIRST, LAST)} == {name: began[name] for name in (FIRST, LAST)}
    assert "pre-upgrade" in site.ssh(SERVER, f"ls {SNAPSHOTS}")


def ready(node: dict[str, Any]) -> bool:
    """The node says so."""
    return any(item["type"] == "Ready" and item["status"] == "True" for item in node["status"]["conditions"])


def test_the_roll_stops_at_a_node_that_cannot_be_drained(site: LocalSite, up: None) -> None:
    """A pod without a controller would be lost. The nodes before it are new; answers are counted."""
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "alone"},
        "spec": {"nodeName": LAST, "containers": [{"name": "c", "image": "rancher/mirrored-pause:3.6"}]},
    }
    site.ssh(SERVER, f"echo '{json.dumps(pod)}' | {KUBECTL} create -f -")
    began = starts(site)
    configure(site, manifest(site))
    asker, watch = Asker([site.address(name) for name in site.names]), Watch(site)
    text = refused(site)
    not_ready = watch.end()
    asked, failed = asker.end()
    print(f"{len(failed)} of {asked} questions without an answer: {failed}; not ready at once: {not_ready}")
    assert "default/alone" in text
    assert f"node {LAST} could not be drained" in text
    assert versions(site) == {SERVER: NEW, FIRST: NEW, LAST: OLD}
    assert cordoned(site) == []
    now = starts(site)
    assert began[SERVER] < now[SERVER] < now[FIRST]
    assert now[LAST] == began[LAST]
    assert max(len(names) for names in not_ready) <= 1


def test_up_again_goes_on_from_there(site: LocalSite, up: None) -> None:
    """The operator had cordoned the node: it stays so."""
    site.ssh(SERVER, f"{KUBECTL} delete pod alone --now")
    site.ssh(SERVER, f"{KUBECTL} cordon {LAST}")
    began = starts(site)
    asker, watch = Asker([site.address(name) for name in site.names]), Watch(site)
    text = upgraded(site)
    not_ready = watch.end()
    asked, failed = asker.end()
    print(f"{len(failed)} of {asked} questions without an answer: {failed}; not ready at once: {not_ready}")
    assert f"node {LAST} was cordoned before the upgrade, and stays so" in text
    assert versions(site) == dict.fromkeys(site.names, NEW)
    assert cordoned(site) == [LAST]
    now = starts(site)
    assert {name: now[name] for name in (SERVER, FIRST)} == {name: began[name] for name in (SERVER, FIRST)}
    assert now[LAST] > began[LAST]
    assert max(len(names) for names in not_ready) <= 1
    site.ssh(SERVER, f"{KUBECTL} uncordon {LAST}")


def test_the_model_answers_and_nothing_is_left_to_do(site: LocalSite, up: None) -> None:
    asked = site.run("python", "-m", "workloads", "query", site.output("endpoints")["ai-inference"])
    assert asked.returncode == 0, asked.stdout + asked.stderr
    again = site.pulumi("up", "--yes")
    assert re.search(r"Resources:\s+\d+ unchanged\s+Duration", again.stdout), again.stdout[-2000:]


def test_the_way_back_is_refused(site: LocalSite, up: None) -> None:
    began = starts(site)
    configure(site, manifest(site, old()))
    text = refused(site)
    assert f"K3s {NEW} found, artifact k3s is {OLD}: K3s does not go back to an older version" in text
    assert starts(site) == began


def test_all_of_it_goes(site: LocalSite, up: None, before: dict[str, list[str]]) -> None:
    gone(site, before)


def gone(site: LocalSite, before: dict[str, list[str]]) -> None:
    """Destroys the stack and compares the hosts with what they were."""
    done = site.pulumi("destroy", "--yes", "--skip-preview")
    assert done.returncode == 0, done.stdout + done.stderr
    for name in site.names:
        assert sorted(set(site.traces(name)) ^ set(before[name])) == []


def test_a_host_without_power_in_its_upgrade_is_made_whole_by_the_next_up(
    site: LocalSite, before: dict[str, list[str]]
) -> None:
    """One host, sqlite; the stack is gone by now."""
    configure(site, manifest(site, old()), roles=ALONE)
    upgraded(site)
    site.ssh(SERVER, f"{KUBECTL} create configmap from-before")
    configure(site, manifest(site), roles=ALONE)
    interrupted = subprocess.Popen(
        ["pulumi", "up", "--yes", "--skip-preview", "--stack", STACK, "--non-interactive"],
        cwd=site.project,
        env=site.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    while NEW not in site.ssh(SERVER, "ls /var/lib/edge-inference/upgrade && k3s --version || true"):
        assert interrupted.poll() is None, interrupted.communicate()[0]
        time.sleep(0.2)
    site.localhosts("stop", SERVER)
    text, _ = interrupted.communicate(timeout=900)
    print(text)
    assert interrupted.returncode != 0
    site.localhosts("start", SERVER)
    until("the API answers", lambda: bool(nodes(site)))
    upgraded(site)
    assert versions(site) == {SERVER: NEW}
    assert "upgrade" not in site.ssh(SERVER, "ls /var/lib/edge-inference").split()
    assert "from-before" in site.ssh(SERVER, f"{KUBECTL} get configmaps")


def test_the_datastore_from_before_and_the_previous_k3s_are_the_way_back(
    site: LocalSite, before: dict[str, list[str]]
) -> None:
    """The steps of docs/upgrade.md."""
    site.ssh(SERVER, f"{KUBECTL} create configmap from-after")
    assert "state.db" in site.ssh(SERVER, f"tar -tf {SNAPSHOTS}/pre-upgrade-*-{OLD}.tar")
    restore = (
        "set -e; systemctl stop k3s; cp /usr/local/bin/k3s.previous /usr/local/bin/k3s; "
        f"cd {SNAPSHOTS}/..; rm -f state.db*; tar -xf snapshots/pre-upgrade-*-{OLD}.tar; systemctl start k3s"
    )
    site.ssh(SERVER, restore)
    configure(site, manifest(site, old()), roles=ALONE)
    upgraded(site)
    assert versions(site) == {SERVER: OLD}
    found = site.ssh(SERVER, f"{KUBECTL} get configmaps")
    assert "from-before" in found
    assert "from-after" not in found
    gone(site, before)


def test_three_servers_go_one_by_one(site: LocalSite, before: dict[str, list[str]]) -> None:
    configure(site, manifest(site, old()), roles=SERVERS)
    upgraded(site)
    configure(site, manifest(site), roles=SERVERS)
    asker, watch = Asker([site.address(name) for name in site.names]), Watch(site)
    upgraded(site)
    not_ready = watch.end()
    asked, failed = asker.end()
    print(f"{len(failed)} of {asked} questions without an answer: {failed}; not ready at once: {not_ready}")
    assert versions(site) == dict.fromkeys(site.names, NEW)
    assert cordoned(site) == []
    assert max(len(names) for names in not_ready) <= 1
    began = list(starts(site).values())
    assert began == sorted(began)
    gone(site, before)
