"""What the device plugin reads of its sharing, and which sharing is refused."""

import json

import pytest

from components.nvidia import Mps, NvidiaRuntimeArgs, TimeSlicing


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


def test_sharing_that_cannot_be_is_refused() -> None:
    with pytest.raises(ValueError, match="1 pods on a GPU, need 2 or more"):
        NvidiaRuntimeArgs("image", sharing=TimeSlicing(1))
    with pytest.raises(ValueError, match="Mps knows no partitions"):
        NvidiaRuntimeArgs("image", sharing=Mps(2), mig_strategy="single")
