"""What GPUs need in a cluster passes the policy pack by its own name, and under no other."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.integration.local_site import LocalSite
from tests.policy.world import Engine, Images, write_index

DIGEST = "07e5c3a1" * 8
PLUGIN = f"edge.local/nvidia/k8s-device-plugin@sha256:{DIGEST}"


class GpuStack:
    """The project's own program with one host that has a GPU; nothing is reached, all is previewed.

    Args:
        folder: holds the project, a key pair and a layout with the image's signature.
    """

    def __init__(self, folder: Path) -> None:
        self.site = LocalSite(folder, "none", "10.216.13")
        self.site.make_project()
        signer = Images(folder, "")
        signer.make_keys("trusted")
        write_index(folder / "layout", [signer.sign_in_layout("layout", DIGEST, "trusted")])
        signed = {"keys": [{"file": str(folder / "trusted.pub")}], "layouts": [str(folder / "layout")]}
        self.settings = folder / "settings.json"
        self.settings.write_text(json.dumps({"signed-images": signed}))

    def configure(self, **nvidia: Any) -> None:
        """Sets the stack's GPUs."""
        host = {"name": "gpu", "role": "server", "address": "192.0.2.1", "hostKeyFile": "none", "gpu": True}
        wanted = {"enabled": True, "devicePluginImage": PLUGIN} | nvidia
        self.site.configure(hosts=[host], services=[], nvidia=wanted)

    def preview(self) -> subprocess.CompletedProcess[str]:
        """Previews with the policy pack, whose settings are the project's but for the key."""
        config = ["--policy-pack-config", str(self.settings)]
        return self.site.pulumi("preview", "--color=never", "--policy-pack", "policies", *config)

    def declared(self) -> list[dict[str, Any]]:
        """The type, name and inputs of each Kubernetes object of the preview."""
        done = self.site.pulumi("preview", "--json")
        assert done.returncode == 0, done.stdout + done.stderr
        states = [step["newState"] for step in json.loads(done.stdout)["steps"]]
        return [
            {"type": each["type"], "name": each["urn"].rsplit("::", 1)[1], "inputs": each["inputs"]}
            for each in states
            if each["type"].startswith("kubernetes:")
        ]


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
    (found,) = (each for each in stack.declared() if each["name"] == "nvidia-mps")
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
