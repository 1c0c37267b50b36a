"""The rules as functions: shapes that a typed SDK would not let through, settings."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies import config, limits
from policies.rules import Resource
from policies.values import Unknown

SETTINGS = limits.LimitSettings(maxCpu="4", maxMemory="4Gi")
DEPLOYMENT = "kubernetes:apps/v1:Deployment"


def findings(kind: str, inputs: Any) -> list[str]:
    """Return what resource-limits says of a resource."""
    return [finding.text() for finding in limits.check(Resource(kind, inputs), SETTINGS)]


@pytest.mark.parametrize(
    ("inputs", "expected"),
    [
        ({"spec": []}, "spec is not a mapping"),
        ({"spec": {"template": {"spec": {"containers": {}}}}}, "spec.containers is not a list of containers"),
        ({"spec": {"template": {"spec": {"containers": [3]}}}}, "containers[0] is not a container"),
        ({"spec": {"template": {"spec": {"containers": [{"resources": 1}]}}}}, "resources is 1"),
        ({"spec": {"template": Unknown()}}, "spec.template is not yet known"),
        ({"spec": {"template": {"spec": {"containers": [{"resources": Unknown()}]}}}}, "is not yet known"),
    ],
)
def test_shapes(inputs: Any, expected: str) -> None:
    """A part of the wrong type is named, and a part not known yet is said to be so."""
    assert any(expected in text for text in findings(DEPLOYMENT, inputs))


def test_lists_and_patches() -> None:
    """A list of workloads and a patch are looked into; other kinds and providers are not."""
    item = {"spec": {"template": {"spec": {"containers": [{"name": "c"}]}}}}
    assert findings("kubernetes:apps/v1:DeploymentList", {"items": [item]})[0].startswith(
        'container "c": items[0].spec.template.spec.containers[0].resources.requests.cpu is missing'
    )
    assert findings("kubernetes:apps/v1:DeploymentPatch", item)
    assert not findings("kubernetes:core/v1:Service", item)
    assert not findings("aws:ecs/service:Deployment", item)


def test_thousand_containers() -> None:
    """Each of a thousand containers is reported, four quantities each."""
    inputs = {"spec": {"containers": [{"name": f"c{n}"} for n in range(1000)]}}
    assert len(findings("kubernetes:core/v1:Pod", inputs)) == 4000


SHAPES = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(max_size=5) | st.sampled_from(["1", "1Gi"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["spec", "template", "containers", "resources", "requests", "limits", "cpu", "memory"]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=20,
)


@given(st.dictionaries(st.sampled_from(["spec", "metadata"]), SHAPES))
def test_never_crashes(inputs: dict[str, Any]) -> None:
    """No shape of a Deployment makes the rule fail."""
    findings(DEPLOYMENT, inputs)


def test_settings_beside_the_pack() -> None:
    """config.json is valid and names the local stack's key."""
    assert config.load("resource-limits", limits.LimitSettings, "local", {}).maxCpu
    with pytest.raises(config.ConfigError, match=r"resource-limits\.maxCpu.*'lots' is not a quantity"):
        config.load("resource-limits", limits.LimitSettings, "local", {"maxCpu": "lots"})
    with pytest.raises(config.ConfigError, match=r"resource-limits\.maxCpus"):
        config.load("resource-limits", limits.LimitSettings, "local", {"maxCpus": "1"})


def test_stack_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stack's own file changes what it names, the engine's settings change both."""
    monkeypatch.setattr(config, "PACK", tmp_path)
    (tmp_path / "config.json").write_text('{"resource-limits": {"maxCpu": "1", "maxMemory": "1Gi"}}')
    (tmp_path / "config.prod.json").write_text('{"resource-limits": {"maxCpu": "8"}}')
    loaded = [
        config.load("resource-limits", limits.LimitSettings, stack, given).maxCpu
        for stack, given in (("dev", {}), ("prod", {}), ("prod", {"maxCpu": "16"}))
    ]
    assert loaded == ["1", "8", "16"]
    (tmp_path / "config.test.json").write_text('{"resource-limit": {}}')
    with pytest.raises(config.ConfigError, match=r"config\.test\.json: unknown rule 'resource-limit'"):
        config.check_files([limits.RULE])
