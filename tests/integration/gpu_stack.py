"""A stack of the project's own program with GPUs, for previews: no host is reached."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

from tests.integration.local_site import LocalSite
from tests.policy.world import Images, write_index

DIGEST = "07e5c3a1" * 8
PLUGIN = f"edge.local/nvidia/k8s-device-plugin@sha256:{DIGEST}"
EXPORTER = f"edge.local/nvidia/dcgm-exporter@sha256:{DIGEST}"


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

    def declared(self, component: str) -> list[dict[str, Any]]:
        """The type, name and inputs of each object of a component."""
        done = self.site.pulumi("preview", "--json")
        assert done.returncode == 0, done.stdout + done.stderr
        states = [step["newState"] for step in json.loads(done.stdout)["steps"]]
        return [
            {"type": each["type"], "name": each["urn"].rsplit("::", 1)[1], "inputs": each["inputs"]}
            for each in states
            if each.get("parent", "").endswith(f"::{component}") and each["type"].startswith("kubernetes:")
        ]
