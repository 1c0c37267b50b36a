"""What the NVIDIA GPUs of this machine do, step by step, as far as the machine goes: `make gpu-facts`.

Needs Python 3.9 and nothing beside it; installs nothing. The host's check (gpu.sh), nvidia-smi, a CDI file,
NVML, a CUDA program, WasmEdge's plugins: what is missing is said, and the rest goes on. Exit code 0: all
of it worked. MINIMUM_DRIVER and MINIMUM_TOOLKIT are compared as the settings are; left out: any version.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from tests.gpu import cuda, nvml

_SCRIPTS = Path(__file__).parents[2] / "components/scripts"
_PLUGINS = (
    "/usr/lib/wasmedge",
    "/usr/local/lib/wasmedge",
    "/opt/wasmedge/lib/wasmedge",
    "~/.wasmedge/plugin",
)


def run(*command: str, stdin: str = "") -> list[str]:
    """What a command prints.

    Raises:
        OSError: it is not there, or it failed.
    """
    if shutil.which(command[0]) is None:
        raise OSError(f"{command[0]} not found")
    done = subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=120, check=False)
    lines = (done.stdout + done.stderr).splitlines()
    if done.returncode != 0:
        raise OSError("\n".join(lines) or f"{command[0]} ended with {done.returncode}")
    return lines


def machine() -> list[str]:
    """When and where."""
    release = dict(line.split("=", 1) for line in run("cat", "/etc/os-release") if "=" in line)
    name = release.get("PRETTY_NAME", "Linux").strip('"')
    system = f"{name}, kernel {platform.release()}, {platform.machine()}, {os.cpu_count()} processors"
    return [time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()), system]


def host_check() -> list[str]:
    """What `pulumi up` checks."""
    values = {
        "HOST": platform.node(),
        "MINIMUM_GPUS": "1",
        "MINIMUM_DRIVER": os.environ.get("MINIMUM_DRIVER", "0"),
        "DRIVER_FOR": "MINIMUM_DRIVER",
        "MINIMUM_TOOLKIT": os.environ.get("MINIMUM_TOOLKIT", "0"),
        "MEMORY_MIB": "0",
        "PACKAGES": "",
    }
    text = "".join(f"{key}='{value}'\n" for key, value in values.items())
    text += "".join((_SCRIPTS / name).read_text() for name in ("lib.sh", "gpu.sh"))
    return run("sh", "-c", 'eval "$(cat)"', "gpu.sh", "apply", stdin=text)


def specification() -> list[str]:
    """A CDI specification in a folder of its own, and the devices in it."""
    with tempfile.TemporaryDirectory() as folder:
        lines = run("nvidia-ctk", "--version")
        lines += run("nvidia-ctk", "cdi", "generate", f"--output={folder}/nvidia.yaml")
        lines += Path(folder, "nvidia.yaml").read_text().splitlines()
        return lines + run("nvidia-ctk", "cdi", "list", f"--spec-dir={folder}")


def wasmedge() -> list[str]:
    """WasmEdge, its plugins, and which of them use CUDA."""
    lines = run("wasmedge", "--version")
    folders = [*os.environ.get("WASMEDGE_PLUGIN_PATH", "").split(":"), *_PLUGINS]
    plugins = [
        file for name in folders if name for file in Path(name).expanduser().glob("libwasmedgePlugin*.so")
    ]
    for plugin in plugins:
        linked = [line for line in run("ldd", str(plugin)) if "cuda" in line or "cublas" in line]
        lines.append(f"{plugin}: {'CUDA' if linked else 'no CUDA'}")
    if not any("WasiNN" in plugin.name for plugin in plugins):
        raise OSError("\n".join([*lines, "plugin WASI-NN not found"]))
    return lines


STEPS: dict[str, Callable[[], list[str]]] = {
    "machine": machine,
    "host check": host_check,
    "nvidia-smi": lambda: run("nvidia-smi") + run("nvidia-smi", "-q"),
    "CDI specification": specification,
    "NVML": nvml.discover,
    "CUDA": cuda.add,
    "WasmEdge": wasmedge,
}


def main() -> int:
    """Runs all steps; returns the exit code."""
    missing = []
    for name, step in STEPS.items():
        print(f"== {name}", flush=True)
        try:
            print("\n".join(step()), flush=True)
        except (OSError, AttributeError, subprocess.TimeoutExpired) as error:
            print(f"{error}\n-- {name}: not possible here", flush=True)
            missing.append(name)
    print(f"== not possible here: {', '.join(missing)}" if missing else "== all of it worked")
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main())
