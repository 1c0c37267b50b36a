"""What GPUs need in a cluster passes the policy pack by its own name, and under no other."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.integration.gpu_stack import EXPORTER, PLUGIN, GpuStack
from tests.policy.world import Engine, Images


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> GpuStack:
    return GpuStack(tmp_path_factory.mktemp("nvidia"))


@pytest.fixture(scope="module")
def mps(stack: GpuStack) -> dict[str, Any]:
    """NVIDIA's MPS daemon, as the stack declares it."""
    stack.configure(sharing={"by": "mps", "replicas": 2})
    done = stack.preview()
    assert done.returncode == 0, done.stdout + done.stderr
    assert "[mandatory]" not in done.stdout
    (found,) = (each for each in stack.declared("nvidia") if each["name"] == "nvidia-mps")
    return found


@pytest.mark.parametrize(
    ("metadata", "refused"),
    [({}, False), ({"name": "other-mps-control-daemon"}, True), ({"namespace": "inference"}, True)],
)
def test_the_mps_daemon_passes_by_its_name_alone(
    stack: GpuStack,
    mps: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    metadata: dict[str, str],
    refused: bool,
) -> None:
    """The same pod in another namespace or under another name is refused for all that it asks of its node."""
    inputs = mps["inputs"] | {"metadata": mps["inputs"]["metadata"] | metadata}
    (tmp_path / "resources.json").write_text(json.dumps([mps | {"inputs": inputs}]))
    monkeypatch.setenv("RESOURCES", str(tmp_path / "resources.json"))
    images = Images(tmp_path, "", {"signed": PLUGIN, "offline": PLUGIN})
    code, output = Engine(tmp_path).run("preview", "given", images, json.loads(stack.settings.read_text()))
    assert (code != 0) == refused, output
    for wanted in ("hostPID is true", "privileged is true", "/run/nvidia/mps, a folder of the node"):
        assert (wanted in output) == refused, output
    assert ("livenessProbe is missing" in output) == refused


def test_the_exporter_passes_without_an_exception(stack: GpuStack) -> None:
    stack.configure(dcgmExporter={"enabled": True, "image": EXPORTER})
    done = stack.preview()
    assert done.returncode == 0, done.stdout + done.stderr
    assert "[mandatory]" not in done.stdout
    made = {each["type"].rsplit(":", 1)[1]: each["inputs"] for each in stack.declared("dcgm-exporter")}
    pod = made["DaemonSet"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert pod["runtimeClassName"] == "nvidia"
    assert pod["nodeSelector"] == {"edge.inference/gpu": "nvidia"}
    assert [list(volume) for volume in pod["volumes"]] == [["configMap", "name"]], "nothing of the node"
    assert container["image"] == EXPORTER
    assert container["securityContext"]["runAsNonRoot"] is True
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert {each["name"]: each.get("value") for each in container["env"]} == {
        "DCGM_EXPORTER_KUBERNETES": "false",
        "DCGM_EXPORTER_LISTEN": ":9400",
        "NODE_NAME": None,
    }
    counters = made["ConfigMap"]["data"]["counters.csv"]
    assert "DCGM_FI_DEV_GPU_UTIL, gauge, " in counters
    assert "DCGM_FI_PROF_" not in counters, "DCGM gives them to root alone, and ends without them"
    assert made["Service"]["metadata"]["annotations"]["prometheus.io/port"] == "9400"
    selector = made["DaemonSet"]["spec"]["selector"]["matchLabels"]
    assert made["Service"]["spec"]["selector"] == selector
    assert made["NetworkPolicy"]["spec"]["podSelector"] == {"matchLabels": selector}
    assert made["NetworkPolicy"]["spec"]["ingress"] == [{"ports": [{"port": 9400, "protocol": "TCP"}]}]


@pytest.mark.parametrize(
    ("setting", "refusals"),
    [
        ("profiling", ("capabilities.add holds SYS_ADMIN", "runAsUser is 0, which is root")),
        ("perPod", ("hostPath.path is /var/lib/kubelet/pod-resources", "runAsUser is 0, which is root")),
    ],
)
def test_what_the_exporter_needs_for_more_is_refused(
    stack: GpuStack, setting: str, refusals: tuple[str, ...]
) -> None:
    """Whoever wants it writes an exception, with a name and an end."""
    stack.configure(dcgmExporter={"enabled": True, "image": EXPORTER, setting: True})
    done = stack.preview()
    assert done.returncode != 0
    for text in refusals:
        assert "pod-security  (kubernetes:apps/v1:DaemonSet: dcgm-exporter)" in done.stdout
        assert text in done.stdout
    assert "DaemonSet: nvidia)" not in done.stdout
