"""From two bare hosts to an answered inference, as a user does it, and back."""

from __future__ import annotations

import json
import os
import re
import time
import urllib.request
from collections.abc import Iterator

import pytest
import yaml

from tests.integration.admitted import BY_ITSELF, Cluster, exceptions_and_levels, verdicts
from tests.integration.local_site import CHECKOUT, LocalSite
from tests.policy import corpus

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="local hosts need root: run the tests with sudo")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalSite]:
    made = LocalSite(tmp_path_factory.mktemp("platform"), "plat", "10.216.4")
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
def up(site: LocalSite, before: dict[str, list[str]]) -> str:
    """The first `up`, with the policy pack; returns what it printed."""
    start = time.monotonic()
    done = site.pulumi("up", "--yes", "--policy-pack", "policies")
    assert done.returncode == 0, done.stdout + done.stderr
    print(f"\nbare hosts to a serving model: {time.monotonic() - start:.0f} s")
    return done.stdout


def _pids(site: LocalSite) -> dict[str, str]:
    """On each host, start times of K3s and process numbers of every shim and container."""
    command = (
        "systemctl show -p ActiveEnterTimestampMonotonic -p ExecMainPID -p NRestarts k3s k3s-agent;"
        " pgrep -f '[c]ontainerd-shim' | sort"
    )
    return {name: site.ssh(name, command) for name in site.names}


def test_policies_were_checked(up: str) -> None:
    assert re.search(r"Policies:\s+✅ .*edge-inference", up), up[-3000:]


def test_model_answers_from_outside_by_the_load_balancer(site: LocalSite, up: str) -> None:
    url = site.output("endpoints")["ai-inference"]
    assert url in {f"http://{site.subnet}.11:8080", f"http://{site.subnet}.12:8080"}
    for address in (f"{site.subnet}.11", f"{site.subnet}.12"):
        with urllib.request.urlopen(f"http://{address}:8080/v2/health/ready", timeout=10) as answer:
            assert answer.status == 200
    asked = site.run("python", "-m", "workloads", "query", url)
    assert asked.returncode == 0, asked.stdout + asked.stderr
    print(asked.stdout)


def test_every_answer_equals_onnxruntime(
    site: LocalSite, up: str, capsys: pytest.CaptureFixture[str]
) -> None:
    url = site.output("endpoints")["ai-inference"]
    compared = site.run("python", "-m", "workloads", "evaluate", url)
    with capsys.disabled():
        print(f"\n{compared.stdout}")
    assert compared.returncode == 0, compared.stdout + compared.stderr


def test_status_proves_what_runs(site: LocalSite, up: str) -> None:
    shown = site.run("python", "-m", "status", "--stack", "test")
    print(shown.stdout)
    assert shown.returncode == 0, shown.stdout + shown.stderr
    for name in site.names:
        assert re.search(rf"{name} +│ +yes +│ +v1\.30\.\d+\+k3s1 +│ +containerd://1\.7", shown.stdout)
    text = re.sub(r"\s+", "", shown.stdout)
    assert "containerd-shim-wasmedge-v1" in text
    assert "libwasmedge.so" in text
    assert "on the hosts: WasmEdge 0.14.1" in shown.stdout


def test_pods_are_wasm_and_restricted(site: LocalSite, up: str) -> None:
    listed = json.loads(
        site.ssh(
            site.names[0], "k3s kubectl --cache-dir /run/kubectl get pods,runtimeclass -n inference -o json"
        )
    )
    pods = [item for item in listed["items"] if item["kind"] == "Pod"]
    classes = {item["metadata"]["name"]: item for item in listed["items"] if item["kind"] == "RuntimeClass"}
    assert len(pods) == 2
    assert {pod["spec"]["runtimeClassName"] for pod in pods} == {"wasm"}
    assert classes["wasm"]["handler"] == "wasmedge"
    assert {pod["spec"]["nodeName"] for pod in pods} == set(site.names)
    assert all(pod["spec"]["overhead"] for pod in pods)


def test_second_up_changes_and_restarts_nothing(site: LocalSite, up: str) -> None:
    running = _pids(site)
    again = site.pulumi("up", "--yes", "--policy-pack", "policies")
    assert again.returncode == 0, again.stdout + again.stderr
    assert re.search(r"Resources:\s+\d+ unchanged\s+Duration", again.stdout), again.stdout[-2000:]
    assert _pids(site) == running


def test_preview_refuses_what_the_policies_forbid(site: LocalSite, up: str) -> None:
    """The very stack that passes, with an image nobody signed: refused before anything is touched."""
    image = json.loads((CHECKOUT / ".artifacts/digits.json").read_text())["image"]
    unsigned = image.split("@")[0] + "@sha256:" + "0" * 64
    service = {"name": "ai-inference", "image": unsigned, "replicas": 2}
    site.configure(services=[service])
    try:
        refused = site.pulumi("preview", "--policy-pack", "policies")
    finally:
        site.configure()
    assert refused.returncode != 0
    assert "signed-images" in refused.stdout
    assert unsigned in refused.stdout


def test_autoscaler_follows_the_load(site: LocalSite, up: str) -> None:
    """The cluster knows what wasm pods use, so that load brings more of them; then back to two."""
    service = yaml.safe_load((CHECKOUT / "stacks/Pulumi.local.yaml").read_text())["config"][
        "edge-inference:services"
    ][0]
    del service["replicas"]
    scale = {"minReplicas": 2, "maxReplicas": 3, "cpuPercent": 50}
    site.configure(services=[service | {"autoscaling": scale}])
    changed = site.pulumi("up", "--yes", "--skip-preview", "--policy-pack", "policies")
    assert changed.returncode == 0, changed.stdout + changed.stderr
    url = site.output("endpoints")["ai-inference"]
    show = (
        "k3s kubectl --cache-dir /run/kubectl get -n inference deployment ai-inference-edge"
        " -o 'jsonpath={.status.readyReplicas}'"
    )
    start = time.monotonic()
    while (ready := site.ssh(site.names[0], show)) != "3":
        assert time.monotonic() - start < 180, site.ssh(
            site.names[0], "k3s kubectl --cache-dir /run/kubectl describe hpa -n inference"
        )
        assert ready == "2"
        loaded = site.run("python", "-m", "workloads", "bench", url, "--requests", "20000")
        assert loaded.returncode == 0, loaded.stdout
    print(f"\na third pod serves {time.monotonic() - start:.0f} s after the load came")
    # An update of something else leaves the number to the autoscaler.
    site.configure(services=[service | {"autoscaling": scale, "env": {"CHANGED": "1"}}])
    again = site.pulumi("up", "--yes", "--skip-preview")
    assert re.search(r"~ 1 updated\n", again.stdout), again.stdout
    assert site.ssh(site.names[0], show.replace("status.readyReplicas", "spec.replicas")) == "3"
    site.configure()
    back = site.pulumi("up", "--yes", "--skip-preview")
    assert back.returncode == 0, back.stdout + back.stderr


def test_the_cluster_refuses_what_the_pack_refuses(
    site: LocalSite, up: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Past Pulumi, the API server's verdict on each object of the policies' corpus is the pack's."""
    rows = verdicts(Cluster(site))
    with capsys.disabled():
        print(f"\n{'object':40} {'the pack':34} the API server")
        print("\n".join(f"{row.case.name:40} {row.pack:34} {row.server}" for row in rows))
    for row in rows:
        assert (row.pack == "taken") == (row.server == "taken"), row
        assert (row.server == BY_ITSELF) == (row.case.name in corpus.API_SERVER), row


def test_the_cluster_keeps_to_exceptions_and_levels(site: LocalSite, up: str) -> None:
    exceptions_and_levels(Cluster(site))


def test_destroy_leaves_the_hosts_as_they_were(
    site: LocalSite, up: str, before: dict[str, list[str]]
) -> None:
    start = time.monotonic()
    gone = site.pulumi("destroy", "--yes")
    assert gone.returncode == 0, gone.stdout + gone.stderr
    print(f"\ndestroyed in {time.monotonic() - start:.0f} s")
    for name in site.names:
        assert sorted(set(site.traces(name)) ^ set(before[name])) == []
