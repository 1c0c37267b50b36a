"""The device plugin's settings are those of NVIDIA's chart, as docs/gpu.md records them."""

import json
import re
from pathlib import Path

import pytest

from components.nvidia import Mps, NvidiaRuntimeArgs, TimeSlicing

ROW = re.compile(r"^\| (?P<value>.+?) \| (?P<default>.+?) \| `(?P<variable>\w+)` \| (?P<ours>.+?) \|$", re.M)


def test_the_environment_is_the_recorded_one() -> None:
    rows = {row["variable"]: row["ours"] for row in ROW.finditer(Path("docs/gpu.md").read_text())}
    assert len(rows) == 8
    assert NvidiaRuntimeArgs("image").environment() == rows


def test_what_differs_from_the_charts_defaults_is_the_way_of_a_device_alone() -> None:
    differing = []
    for row in ROW.finditer(Path("docs/gpu.md").read_text()):
        default = re.sub(r"^null \((.*)\)$", r"\1", row["default"])
        if default != row["ours"]:
            differing.append(row["variable"])
    assert differing == ["DEVICE_LIST_STRATEGY"]


def test_sharing_is_written_as_the_plugin_reads_it() -> None:
    assert NvidiaRuntimeArgs("image").config is None
    sliced = NvidiaRuntimeArgs("image", sharing=TimeSlicing(4))
    assert json.loads(sliced.config or "") == {
        "version": "v1",
        "sharing": {
            "timeSlicing": {
                "renameByDefault": False,
                "failRequestsGreaterThanOne": False,
                "resources": [{"name": "nvidia.com/gpu", "replicas": 4}],
            }
        },
    }
    assert sliced.environment()["CONFIG_FILE"] == "/config/config.yaml"
    mps = json.loads(NvidiaRuntimeArgs("image", sharing=Mps(2)).config or "")
    assert mps["sharing"]["mps"]["resources"] == [{"name": "nvidia.com/gpu", "replicas": 2}]


def test_partitions_are_watched() -> None:
    environment = NvidiaRuntimeArgs("image", mig_strategy="mixed").environment()
    assert environment["MIG_STRATEGY"] == "mixed"
    assert environment["NVIDIA_MIG_MONITOR_DEVICES"] == "all"


def test_sharing_that_cannot_be_is_refused() -> None:
    with pytest.raises(ValueError, match="1 pods on a GPU, need 2 or more"):
        NvidiaRuntimeArgs("image", sharing=TimeSlicing(1))
    with pytest.raises(ValueError, match="Mps knows no partitions"):
        NvidiaRuntimeArgs("image", sharing=Mps(2), mig_strategy="single")
