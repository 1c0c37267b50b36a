"""The pack's settings, levels and exceptions."""

import datetime
import json
from pathlib import Path
from typing import Any

import pytest

from policies import config, exceptions, limits
from policies.catalog import RULES
from policies.config import ConfigError
from policies.rules import Finding, Resource
from policies.values import Unknown

DAY = datetime.date(2027, 1, 31)
EXCEPTION = {
    "resource": "Deployment/shop/cart",
    "owner": "team-shop",
    "reason": "a vendor's image",
    "expires": "2027-01-31",
}


def test_the_packs_own_files_are_in_order() -> None:
    """config.json and every stack's file; the schema beside them is the rules' own."""
    config.check_files(RULES)
    schema = json.loads((config.PACK / "settings.schema.json").read_text())
    assert schema == config.file_schema(RULES), (
        "run `python -m policies.config > policies/settings.schema.json`"
    )
    text = json.dumps([config.rule_schema(rule.settings) for rule in RULES])
    assert '"$ref"' not in text
    assert '"default"' not in text, "the engine would send it along, over what the files state"


@pytest.fixture
def pack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that takes the pack's place."""
    monkeypatch.setattr(config, "PACK", tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("config.json", "{", r"config\.json: cannot be read as JSON"),
        ("config.json", "[]", r"config\.json: must be an object of rules"),
        ("config.json", '{"resource-limits": 1}', r"config\.json: must be an object of rules"),
        ("config.dev.json", '{"resource-limit": {}}', r"config\.dev\.json: unknown rule 'resource-limit'"),
        ("config.json", '{"probes": {"period": 1}}', r"probes\.period: Extra inputs are not permitted"),
        ("config.json", '{"probes": {"periodSeconds": 0}}', r"probes\.periodSeconds.*found 0"),
        ("config.json", '{"probes": "strict"}', r"probes\.enforcementLevel: 'strict' is none of advisory"),
        (
            "config.json",
            '{"k3s-version": {"versions": "1.30"}}',
            r"k3s-version\.versions.*no version specifier",
        ),
        (
            "config.json",
            '{"probes": {"exceptions": [{}]}}',
            r"probes\.exceptions\.0\.resource: Field required",
        ),
        (
            "config.json",
            json.dumps({"probes": {"exceptions": [EXCEPTION | {"expires": "soon"}]}}),
            r"probes\.exceptions\.0\.expires",
        ),
        (
            "config.json",
            json.dumps({"probes": {"exceptions": [EXCEPTION | {"resource": "Deployment/*/cart"}]}}),
            r"probes\.exceptions\.0\.resource",
        ),
    ],
)
def test_malformed(pack: Path, name: str, text: str, message: str) -> None:
    """What is wrong is named with its file and field."""
    (pack / name).write_text(text)
    with pytest.raises(ConfigError, match=message):
        config.check_files([rule for rule in RULES if rule.id not in ("signed-images", "image-registry")])


def test_levels(pack: Path) -> None:
    """Mandatory where nothing is said; a stack file goes over config.json, the engine over both."""
    (pack / "config.json").write_text('{"probes": "advisory", "resource-limits": {"maxCpu": "1"}}')
    (pack / "config.prod.json").write_text('{"probes": {"enforcementLevel": "mandatory"}}')
    assert config.level("resource-limits", "dev") == "mandatory"
    assert config.level("probes", "dev") == "advisory"
    assert config.level("probes", "prod") == "mandatory"
    assert config.level("probes", "prod", {"enforcementLevel": "disabled"}) == "disabled"


def test_a_disabled_rule_needs_no_settings(pack: Path) -> None:
    (pack / "config.json").write_text('{"signed-images": "disabled", "image-registry": "disabled"}')
    config.check_files(RULES)


def _resource(namespace: Any = "shop", name: str = "cart") -> Resource:
    inputs = {"metadata": {"namespace": namespace, "name": name}}
    return Resource("kubernetes:apps/v1:Deployment", inputs, "cart")


def _left(resource: Resource, day: datetime.date) -> list[str]:
    settings = limits.LimitSettings.model_validate({"exceptions": [EXCEPTION]})
    findings = [Finding("spec", "is wrong", "mend it")]
    return [finding.found for finding in exceptions.apply(resource, findings, settings, day)]


def test_an_exception_holds_until_its_day_is_over() -> None:
    assert not _left(_resource(), DAY)
    after = _left(_resource(), DAY + datetime.timedelta(days=1))
    assert after == ["is wrong; the exception of team-shop (a vendor's image) expired on 2027-01-31"]


def test_an_exception_is_for_one_resource() -> None:
    assert _left(_resource(namespace="shop2"), DAY) == ["is wrong"]
    assert _left(Resource("kubernetes:apps/v1:StatefulSet", _resource().inputs, "cart"), DAY) == ["is wrong"]
    assert _left(_resource(name="card"), DAY) == [], "the name in the program counts too"
    assert not _left(_resource(namespace=Unknown()), DAY), "a namespace not known yet may be the one"


def test_an_exception_of_a_namespace_and_of_the_default_one() -> None:
    namespace = Resource("kubernetes:core/v1:Namespace", {"metadata": {"name": "shop"}}, "shop")
    assert namespace.is_called("Namespace//shop")
    assert not namespace.is_called("Namespace//shop2")
    bare = Resource("kubernetes:core/v1:Pod", {"metadata": {"name": "p"}}, "p")
    assert bare.is_called("Pod/default/p")
    assert bare.is_called("Pod//p")
    assert Resource("command:remote:Command", {}, "edge-1-k3s").is_called("Command/edge-1-k3s")
