"""The pack in the real engine: what it refuses, what it says, and what it lets through."""

import re
from typing import Any

import pytest

from tests.policy.world import Engine, Images

MISSING = "is missing. Fix: set"
# Resource of the bad stack → what the report must say of it.
REFUSED = {
    "image-unsigned": "which is not signed: registry 127.0.0.1:",
    "image-init": r"spec.initContainers\[0\].image is .*, which is not signed",
    "image-other-key": "whose signature does not verify with .*trusted.pub or .*: no matching signatures",
    "image-expired-key": r"only trusted signature is by the key .*expired.pub, which expired on 2020-01-31",
    "image-revoked-key": r"by the key .*revoked.pub, which is revoked: a laptop was lost. Fix: look into",
    "image-latest": "whose tag latest does not say which version it is",
    "image-tag-only": "which names no digest",
    "image-moved-tag": "models/moved:v1@sha256:.*, which is not signed.*but one for .* a tag was moved after",
    "image-tampered": "whose signature does not verify with .*trusted.pub or .*: no matching signatures",
    "image-registry-down": "registry 127.0.0.1:1 cannot be reached .*connection refused",
    "image-foreign-registry": "from a registry that is not allowed. Fix: use one of",
    "image-empty": "spec.containers.0..image is missing",  # the provider drops an empty text
    "image-malformed": "is not an image name",
    "no-cpu-request": rf"containers\[0\].resources.requests.cpu {MISSING}",
    "no-memory-limit": rf"containers\[0\].resources.limits.memory {MISSING}",
    "limit-below-request": r"resources.limits.memory is 1Gi, less than the request 2Gi. Fix: raise the limit",
    "invalid-quantity": r"resources.limits.memory is invalid: '1GB' is not a quantity",
    "negative": r"resources.requests.cpu is -1, less than zero",
    "zero": r"resources.limits.cpu is 0, which is no bound",
    "millibytes": r"resources.requests.memory is 512m, not a whole number of bytes",
    "above-ceiling": r"resources.limits.cpu is 1e3, above this environment's ceiling 4",
    "gpu-fraction": r'resources.requests\["nvidia.com/gpu"\] is 500m, not whole',
    "gpu-differs": r'resources.limits\["nvidia.com/gpu"\] is 2, the request 1. Fix: a device cannot',
    "bare-job": rf"spec.template.spec.containers\[0\].resources.requests.cpu {MISSING}",
    "bare-cronjob": rf"spec.jobTemplate.spec.template.spec.containers\[0\].resources.limits.cpu {MISSING}",
    "bare-replicaset": rf"resources.limits.cpu {MISSING}",
    "bare-statefulset": rf"resources.limits.memory {MISSING}",
    "bare-daemonset": rf'"bare": spec.template.spec.initContainers\[0\].*limits.memory {MISSING}',
}


def test_good_stack_passes(engine: Engine, images: Images) -> None:
    """What is in order passes; what preview cannot know is said to be unknown."""
    code, output = engine.run("preview", "good", images, images.settings())
    assert code == 0, output
    assert re.search(r"later: container \"c\": spec.containers\[0\].image is not yet known", output), output
    assert "[mandatory]" not in output


def test_bad_stack_is_refused(engine: Engine, images: Images) -> None:
    """Every bad resource is refused, with its name, the field, what was found and the fix."""
    code, output = engine.run("preview", "bad", images, images.settings())
    assert code != 0
    assert "[mandatory]" in output
    for name, message in REFUSED.items():
        assert re.search(rf"{name}: container .*{message}", output), (name, output)


def test_unknown_is_checked_at_up(engine: Engine, images: Images) -> None:
    """An image that preview could not know is refused at up, before the pod is created."""
    code, output = engine.run("preview", "late", images, images.settings())
    assert code == 0, output
    assert "image is not yet known. `pulumi up` checks it" in output
    code, output = engine.run("up", "late", images, images.settings())
    assert code != 0
    assert re.search(r"late: container \"c\": .* which is not signed", output), output
    assert not list(engine.folder.glob("late/rendered/**/*.yaml"))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"resource-limits": {"maxCpu": "lots"}}, "resource-limits.maxCpu.*'lots' is not a quantity"),
        ({"signed-images": {"key": "k"}}, "signed-images.key: Extra inputs are not permitted"),
        ({"signed-images": {"keys": "k"}}, "signed-images: keys: Invalid type. Expected: array"),
    ],
)
def test_malformed_settings(engine: Engine, images: Images, settings: dict[str, Any], message: str) -> None:
    """Settings that cannot be used stop the preview and are named."""
    code, output = engine.run("preview", "good", images, settings)
    assert code != 0
    assert re.search(message, output), output


def test_unreadable_key(engine: Engine, images: Images) -> None:
    """A key that is not there refuses every image and is named."""
    code, output = engine.run("preview", "good", images, images.settings(keys=[{"file": "no/such/key.pub"}]))
    assert code != 0
    field = r"signed-images\.keys\.0\.file: the public key .*/no/such/key.pub cannot be read \(No such file"
    assert re.search(field, output), output
