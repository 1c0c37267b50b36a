"""Pods of both runtimes get GPUs from a real kubelet, containerd and scheduler; only the GPUs are made up."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from kubernetes import client

from policies.admission import manifests
from tests.integration.equipment import images
from tests.integration.gpu_cluster import GpuCluster, GpuSite
from tests.integration.gpu_stack import EXPORTER, GpuStack
from tests.integration.local_site import LocalSite

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="local hosts need root: run the tests with sudo")
TEMPLATE = "/var/lib/rancher/k3s/agent/etc/containerd/config.toml.tmpl"
RULE = "edge-inference-pod-security"
UNHEALTHY = "/var/run/cdi/made-up.unhealthy"
HOOK_FAILURE = "/var/run/cdi/made-up.hook-failure"
RUNTIMES = pytest.mark.parametrize(("image", "runtime"), [("see", None), ("see-wasm", "wasm")])


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GpuSite]:
    site = LocalSite(tmp_path_factory.mktemp("gpu"), "gpu", "10.216.11")
    try:
        site.localhosts("create")
        site.make_project()
        result = GpuSite(site, images(site.folder), {"gpu-1": False, "gpu-2": True})
        result.prepare()
        yield result
    finally:
        site.localhosts("delete")


@pytest.fixture(scope="module")
def before(made: GpuSite) -> dict[str, list[str]]:
    """What is on the hosts before the first `up`."""
    return {name: made.site.traces(name) for name in made.site.names}


@pytest.fixture(scope="module")
def cluster(made: GpuSite, before: dict[str, list[str]]) -> GpuCluster:
    """The cluster with one GPU, on the agent."""
    made.up()
    result = GpuCluster(made.site)
    result.until(lambda: result.allocatable("gpu-2") == "1", result.events)
    return result


def _started(made: GpuSite, name: str) -> str:
    return made.site.ssh(name, "systemctl show -p ActiveEnterTimestampMonotonic k3s k3s-agent")


def test_cdi_is_on_where_the_gpus_are_and_nowhere_else(made: GpuSite, cluster: GpuCluster) -> None:
    shown = made.site.ssh("gpu-2", f"cat {TEMPLATE}; grep -c enable_cdi {TEMPLATE.removesuffix('.tmpl')}")
    assert 'template "base"' in shown
    assert shown.endswith("\n1\n")
    assert made.site.ssh("gpu-1", f"ls {TEMPLATE} 2>/dev/null || true") == ""
    assert cluster.allocatable("gpu-1") == "0"


@RUNTIMES
def test_a_pod_gets_all_of_the_specification(
    made: GpuSite, cluster: GpuCluster, image: str, runtime: str | None
) -> None:
    """Its mounts have no type, and its hook makes the link after them, as NVIDIA's tools have it."""
    cluster.run(image, made.images[image], runtime)
    cluster.running(image)
    seen = cluster.seen(image)
    print(f"\n{image}: {seen}")
    cluster.stop(image)
    assert seen == {
        "variable": "gpu0",
        "enabled": "true",
        "device": "yes",
        "library": "library of gpu0",
        "link": "library of gpu0",
        "folder": "firmware of gpu0",
    }


@RUNTIMES
def test_a_hook_that_fails_stops_the_pod(
    made: GpuSite, cluster: GpuCluster, image: str, runtime: str | None
) -> None:
    """What the hook wrote is in the event of a runc pod and in the log of a WasmEdge pod."""
    name = f"{image}-refused"
    made.site.ssh("gpu-2", f"echo the test wants it >{HOOK_FAILURE}")
    cluster.run(name, made.images[image], runtime)
    said, written = cluster.failure(name), cluster.log(name)
    print(f"\n{name}: {said}\n{written}")
    made.site.ssh("gpu-2", f"rm {HOOK_FAILURE}")
    cluster.stop(name)
    assert {None: "error running hook", "wasm": "failed to run hooks"}[runtime] in said
    assert "made-up-cdi-hook: the test wants it" in (written if runtime else said)


def test_the_second_pod_for_one_gpu_waits(made: GpuSite, cluster: GpuCluster) -> None:
    cluster.run("first", made.images["see"])
    cluster.running("first")
    cluster.run("second", made.images["see-wasm"], "wasm")
    reason = cluster.refusal("second")
    print(f"\n{reason}")
    assert "Insufficient nvidia.com/gpu" in reason
    cluster.stop("first")
    cluster.running("second")
    cluster.stop("second")


def test_the_api_server_takes_nvidias_objects_and_the_policies_know_them(
    cluster: GpuCluster, tmp_path: Path
) -> None:
    """K3s has the plugin's class; kube-system is not exempt here, so that the policies' exceptions count."""
    classes = client.NodeV1Api(cluster.core.api_client).list_runtime_class().items
    assert {"nvidia", "nvidia-experimental", "wasm", "wasmedge"} <= {each.metadata.name for each in classes}
    stack = GpuStack(tmp_path)
    stack.configure(sharing={"by": "mps", "replicas": 2}, dcgmExporter={"enabled": True, "image": EXPORTER})
    made = [*stack.declared("nvidia"), *stack.declared("dcgm-exporter")]
    objects = {each["name"]: each["inputs"] for each in made if each["type"].endswith(":DaemonSet")}
    daemon, exporter = objects["nvidia-mps"], objects["dcgm-exporter"]
    stack.configure(dcgmExporter={"enabled": True, "image": EXPORTER, "profiling": True})
    (profiling,) = (
        each["inputs"] for each in stack.declared("dcgm-exporter") if each["type"].endswith(":DaemonSet")
    )
    assert cluster.create(profiling, dry_run="All") is None, "the API server itself has nothing against it"
    policies = [each for each in manifests("test", exempt_namespaces=()) if each["metadata"]["name"] == RULE]
    for policy in policies:
        assert cluster.create(policy) is None
    renamed = daemon | {"metadata": daemon["metadata"] | {"name": "other-mps-control-daemon"}}
    try:
        cluster.until(lambda: cluster.create(renamed, dry_run="All") is not None, lambda: "not in force")
        said = cluster.create(renamed, dry_run="All")
        print(f"\n{said}")
        assert "pod-security: hostPID is refused" in str(said)
        assert "other than none may not be added" in str(cluster.create(profiling, dry_run="All"))
        assert cluster.create(daemon, dry_run="All") is None
        assert cluster.create(exporter, dry_run="All") is None
    finally:
        admission = client.AdmissionregistrationV1Api(cluster.core.api_client)
        for policy in policies:
            name = policy["metadata"]["name"]
            if policy["kind"] == "ValidatingAdmissionPolicy":
                admission.delete_validating_admission_policy(name)
            else:
                admission.delete_validating_admission_policy_binding(name)


def test_four_pods_share_a_gpu_and_the_fifth_waits(made: GpuSite, cluster: GpuCluster) -> None:
    """Sharing is a change of the DaemonSet alone: no K3s is restarted."""
    started = {name: _started(made, name) for name in made.site.names}
    made.up(replicas=4)
    cluster.until(lambda: cluster.allocatable("gpu-2") == "4", cluster.events)
    names = [f"share-{number}" for number in range(4)]
    for number, name in enumerate(names):
        image, runtime = ("see-wasm", "wasm") if number % 2 else ("see", None)
        cluster.run(name, made.images[image], runtime)
    cluster.running(*names)
    cluster.run("fifth", made.images["see"])
    assert "Insufficient nvidia.com/gpu" in cluster.refusal("fifth")
    cluster.stop(*names, "fifth")
    assert {name: _started(made, name) for name in made.site.names} == started


def test_an_ill_gpu_is_not_given_away(made: GpuSite, cluster: GpuCluster) -> None:
    """A second host gets GPUs, which restarts K3s there alone; then the first host's GPU falls ill."""
    started = _started(made, "gpu-2")
    made.gpus["gpu-1"] = True
    made.up()
    assert _started(made, "gpu-2") == started
    for node in made.site.names:
        cluster.until(lambda node=node: cluster.allocatable(node) == "1", cluster.events)  # type: ignore[misc]
    cluster.run("before", made.images["see"], node="gpu-2")
    cluster.running("before")
    made.site.ssh("gpu-2", f"echo gpu0 >{UNHEALTHY}")
    cluster.until(lambda: cluster.allocatable("gpu-2") == "0", cluster.events)
    # Kubernetes leaves the running pod alone; what replaces it goes where a GPU is well.
    assert cluster.phases()["before"] == "Running"
    cluster.stop("before")
    cluster.run("moved", made.images["see"])
    cluster.running("moved")
    assert cluster.node("moved") == "gpu-1"
    cluster.run("nowhere", made.images["see"])
    assert "Insufficient nvidia.com/gpu" in cluster.refusal("nowhere")
    made.site.ssh("gpu-2", f"rm {UNHEALTHY}")
    cluster.running("nowhere")
    assert cluster.node("nowhere") == "gpu-2"
    cluster.stop("moved", "nowhere")


def test_a_second_up_changes_nothing(made: GpuSite, cluster: GpuCluster) -> None:
    assert re.search(r"Resources:\s+\d+ unchanged\s+Duration", made.up())


def test_cdi_goes_with_the_gpus_and_destroy_leaves_the_hosts_as_they_were(
    made: GpuSite, cluster: GpuCluster, before: dict[str, list[str]]
) -> None:
    made.gpus["gpu-1"] = False
    made.up()
    assert made.site.ssh("gpu-1", f"ls {TEMPLATE} 2>/dev/null || true") == ""
    gone = made.site.pulumi("destroy", "--yes", "--skip-preview")
    assert gone.returncode == 0, gone.stdout + gone.stderr
    for name in made.site.names:
        assert sorted(set(made.site.traces(name)) ^ set(before[name])) == []
