"""Settings of GPUs: the one field of a service, what hosts must offer for it, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from components.gpu import gpu_environment
from components.host import EdgeHost
from components.nvidia import Mps, TimeSlicing
from stacks.gpu import CUDA_DRIVERS, GpuSettings, NvidiaSettings
from stacks.settings import SettingsError, parse
from stacks.site import Site

PRELOAD = "WASMEDGE_WASINN_PRELOAD"
NVIDIA = {"enabled": True, "devicePluginImage": "r/p@sha256:" + "07e5c3a1" * 8}


def _dev(service: dict[str, Any] | None = None, **changes: Any) -> dict[str, Any]:
    """The dev stack's settings, which have a GPU, with changes of its service and of the whole."""
    file = Path(__file__).parents[2] / "stacks/Pulumi.dev.yaml"
    config = yaml.safe_load(file.read_text())["config"]
    values = {key.removeprefix("edge-inference:"): value for key, value in config.items()}
    values["services"][0] |= service or {}
    return values | changes


def _refused(values: dict[str, Any]) -> str:
    with pytest.raises(SettingsError) as raised:
        parse(values)
    return str(raised.value)


def test_one_field_asks_for_gpus() -> None:
    values = _dev({"gpu": {"count": 2, "memory": "16Gi"}})
    values["hosts"][0]["gpu"] = 2
    service = parse(values).services[0]
    assert service.gpu is not None
    assert (service.gpu.count, service.gpu.memory_mib, service.gpu.sharing) == (2, 16384, "exclusive")


@pytest.mark.parametrize("by", ["time-slicing", "mps"])
def test_a_shared_gpu_has_the_memory_of_all_its_pods(by: str) -> None:
    shared = {"sharing": {"by": by, "replicas": 4}}
    settings = parse(_dev({"gpu": {"memory": "16Gi", "sharing": by}}, nvidia=NVIDIA | shared))
    site = Site(settings, {}, {}, {}, {}, [])
    host = EdgeHost.__new__(EdgeHost)
    assert site.gpu_args(host, 1).memory_mib == 4 * 16384
    sharing = site.nvidia_args().sharing
    assert sharing is not None
    assert (type(sharing), sharing.replicas) == ({"time-slicing": TimeSlicing, "mps": Mps}[by], 4)


def test_the_plugins_runtime_class_cannot_be_left_out() -> None:
    text = _refused(_dev(cluster={"disable": ["traefik", "runtimes"]}))
    assert "cluster.disable: has runtimes, K3s' RuntimeClasses, and the device plugin needs nvidia" in text
    assert parse(_dev()).cluster.disable == ["traefik", "local-storage"], "without it there is no error"


def test_the_exporter_needs_an_image_and_the_plugin() -> None:
    image = "r/e@sha256:" + "07e5c3a1" * 8
    assert "nvidia.dcgmExporter: image: missing" in _refused(
        _dev(nvidia=NVIDIA | {"dcgmExporter": {"enabled": True}})
    )
    alone = {"dcgmExporter": {"enabled": True, "image": image}}
    assert "nvidia: dcgmExporter.enabled: true with enabled: false" in _refused(_dev(nvidia=alone))
    settings = parse(_dev(nvidia=NVIDIA | alone))
    args = Site(settings, {}, {}, {}, {}, []).dcgm_args()
    assert args is not None
    assert (args.image, args.profiling, args.per_pod) == (image, False, False)
    assert Site(parse(_dev(nvidia=NVIDIA)), {}, {}, {}, {}, []).dcgm_args() is None


def test_an_exclusive_service_on_shared_gpus_is_refused() -> None:
    shared = {"sharing": {"by": "time-slicing", "replicas": 4}}
    text = _refused(_dev(nvidia=NVIDIA | shared))
    assert "services[0].gpu.sharing: ai-inference has exclusive, the stack's GPUs are time-slicing" in text


def test_an_empty_field_is_one_gpu_of_any_memory() -> None:
    gpu = GpuSettings()
    assert (gpu.count, gpu.memory_mib) == (1, 0)


@pytest.mark.parametrize(
    "change",
    [{"nvidia": {"enabled": False}}, {"hosts": None}],
)
def test_no_gpu_node_is_said_at_preview(change: dict[str, Any]) -> None:
    values = _dev()
    values |= change | {"hosts": [host | {"gpu": "hosts" not in change} for host in values["hosts"]]}
    text = _refused(values)
    assert "services[0].gpu: ai-inference asks for a GPU, found no node that offers one" in text
    assert "set gpu: true on a host and nvidia.enabled: true, or leave gpu out" in text


def test_more_gpus_than_any_host_has_are_said_at_preview() -> None:
    values = _dev({"gpu": {"count": 3}})
    values["hosts"] = [
        values["hosts"][0] | {"name": name, "role": role, "gpu": gpu}
        for name, role, gpu in (("one", "server", True), ("two", "agent", 2), ("none", "agent", False))
    ]
    text = _refused(values)
    assert (
        "services[0].gpu.count: ai-inference wants 3 GPUs for each pod, found hosts with one 1, two 2" in text
    )
    assert "lower it to 2, or write the number of GPUs that a host has into hosts[].gpu" in text
    values["hosts"][2]["gpu"] = 3
    assert parse(values).hosts[2].gpu == 3


@pytest.mark.parametrize(
    ("service", "message"),
    [
        ({"gpu": {"count": 0}}, "services[0].gpu.count: found 0"),
        ({"gpu": {"memory": "lots"}}, "services[0].gpu.memory: 'lots' is not a quantity"),
        ({"gpu": {"memory": "0"}}, "services[0].gpu.memory: found '0', need more than 0"),
        ({"gpu": {"sharing": "turns"}}, "services[0].gpu.sharing: found 'turns'"),
        (
            {"gpu": {"count": 2, "sharing": "time-slicing"}},
            "services[0].gpu: count is 2 with sharing time-slicing: set 1",
        ),
        (
            {"gpu": {"sharing": "mps"}},
            "services[0].gpu.sharing: ai-inference has mps, the stack's GPUs are exclusive: set it to",
        ),
        ({"limits": {"cpu": "1", "memory": "1Gi", "gpu": 1}}, "services[0].limits.gpu: unknown setting"),
        ({"env": {"GPU_ENABLED": "true"}}, "services[0]: env.GPU_ENABLED: it is set by gpu: remove it"),
        ({"env": {PRELOAD: "GGML"}}, f"env.{PRELOAD}: found 'GGML', want alias:backend:device:file"),
        ({"env": {PRELOAD: "default:GGML:CPU:/m.gguf"}}, "device CPU, and the service has a gpu: write AUTO"),
        (
            {"gpu": None, "env": {PRELOAD: "default:GGML:GPU:/m.gguf"}},
            "device GPU, and the service has no gpu: write AUTO",
        ),
    ],
)
def test_a_wrong_gpu_is_named(service: dict[str, Any], message: str) -> None:
    assert message in _refused(_dev(service))


@pytest.mark.parametrize(
    ("nvidia", "message"),
    [
        ({"cudaVersion": "12.7"}, "nvidia.cudaVersion: found '12.7', known are 11.8, 12.0"),
        ({"minimumDriver": "550"}, "nvidia.minimumDriver: found '550'"),
        ({"minimumToolkit": "1.17"}, "nvidia.minimumToolkit: found '1.17'"),
    ],
)
def test_a_wrong_version_is_named(nvidia: dict[str, Any], message: str) -> None:
    assert message in _refused(_dev(nvidia=nvidia))


def _driver(**settings: str) -> tuple[str, str]:
    return NvidiaSettings.model_validate(settings).driver


def test_the_driver_is_that_of_the_cuda_version_or_the_given_one() -> None:
    assert _driver() == ("550.54.14", "CUDA 12.4, nvidia.cudaVersion")
    assert _driver(cudaVersion="13.0") == ("580.65.06", "CUDA 13.0, nvidia.cudaVersion")
    assert _driver(minimumDriver="525.60.13") == ("525.60.13", "nvidia.minimumDriver")


def test_a_newer_cuda_needs_a_newer_driver() -> None:
    numbers = [[int(part) for part in driver.split(".")] for driver in CUDA_DRIVERS.values()]
    assert numbers == sorted(numbers)


def test_the_docs_have_the_same_table() -> None:
    text = (Path(__file__).parents[2] / "docs/gpu-hosts.md").read_text()
    rows = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| 1")]
    assert dict(rows) == CUDA_DRIVERS


def test_packages_are_names_of_artifacts() -> None:
    assert parse(_dev(nvidia={"packages": ["driver"]} | NVIDIA)).nvidia.packages == ["driver"]
    assert "nvidia.packages" in _refused(_dev(nvidia={"packages": "driver"} | NVIDIA))


def test_the_server_is_told_of_its_gpu() -> None:
    assert gpu_environment({"A": "b"}) == {"A": "b", "GPU_ENABLED": "true"}
    told = gpu_environment({PRELOAD: "default:GGML:AUTO:/m:1.gguf"})
    assert told[PRELOAD] == "default:GGML:GPU:/m:1.gguf"
