"""The command provider's schema equals the classes of the Python SDK pulumi-command, in both directions."""

import inspect
import json
import re
import shutil
import subprocess
from enum import Enum
from typing import Any

import pulumi_command as sdk
import pytest
from pulumi._types import input_type_py_to_pulumi_names, resource_types

Json = dict[str, Any]
RESOURCES = {
    "command:local:Command": (sdk.local.Command, sdk.local.CommandArgs),
    "command:remote:Command": (sdk.remote.Command, sdk.remote.CommandArgs),
    "command:remote:CopyFile": (sdk.remote.CopyFile, sdk.remote.CopyFileArgs),
    "command:remote:CopyToRemote": (sdk.remote.CopyToRemote, sdk.remote.CopyToRemoteArgs),
}
TYPES = {
    "command:remote:Connection": sdk.remote.ConnectionArgs,
    "command:remote:ProxyConnection": sdk.remote.ProxyConnectionArgs,
}
LOGGING: dict[str, type[Enum]] = {
    "command:local:Logging": sdk.local.Logging,
    "command:remote:Logging": sdk.remote.Logging,
}
PYTHON = {"string": "str", "boolean": "bool", "integer": "int", "number": "float"}


@pytest.fixture(scope="module")
def schema() -> Json:
    """The schema as the installed plugin, the vendor's or ours, serves it to the engine."""
    if shutil.which("pulumi") is None:
        pytest.skip("no pulumi on PATH: run `make setup` and `. ./env.sh`")
    command = ["pulumi", "package", "get-schema", "command@1.2.1"]
    answer = subprocess.run(command, check=True, capture_output=True, text=True)
    found: Json = json.loads(answer.stdout)
    return found


def compare_inputs(properties: Json, required: list[str], args: type) -> None:
    """Compares names, required flags and types of an object's properties with an args class."""
    names = input_type_py_to_pulumi_names(args)
    parameters = dict(inspect.signature(args.__init__).parameters)  # type: ignore[misc]
    del parameters["__self__"]
    assert set(properties) == {names.get(name, name) for name in parameters}
    needed = {names[name] for name, given in parameters.items() if given.default is inspect.Parameter.empty}
    assert set(required) == needed
    for name, given in parameters.items():
        assert python_type(properties[names[name]]) in str(given.annotation), f"{args.__name__}.{name}"


def python_type(declared: Json) -> str:
    """The word that the SDK's annotation of a property of this type contains."""
    if "$ref" in declared:
        last = re.split("[/:]", declared["$ref"])[-1]
        return {"Asset": "Asset", "Archive": "Archive", "Any": "Any"}.get(last, last)
    if declared["type"] == "array":
        return "Sequence"
    if declared["type"] == "object":
        return "Mapping"
    return PYTHON[declared["type"]]


def test_tokens(schema: Json) -> None:
    """The provider has every resource, type and function of the SDK, and no other."""
    assert set(schema["resources"]) == set(RESOURCES)
    assert set(schema["types"]) == set(TYPES) | set(LOGGING)
    assert set(schema["functions"]) == {"command:local:run"}
    assert schema["version"] == "1.2.1"


@pytest.mark.parametrize("token", RESOURCES)
def test_resource(schema: Json, token: str) -> None:
    """Inputs, outputs, secrets and what replaces are those of the SDK's class."""
    resource, args = RESOURCES[token]
    declared = schema["resources"][token]
    compare_inputs(declared["inputProperties"], declared.get("requiredInputs", []), args)
    assert set(declared["properties"]) == set(resource_types(resource))

    source = inspect.getsource(resource)
    secret = {name for name, given in declared["inputProperties"].items() if given.get("secret")}
    assert secret == set(re.findall(r'"(\w+)"\] = None if \w+ is None else pulumi\.Output\.secret', source))
    replacing = re.findall(r"replace_on_changes=\[(.*)\]\)", source)
    expected = {name for names in replacing for name in re.findall(r'"(\w+)', names)}
    actual = {name for name, given in declared["inputProperties"].items() if given.get("replaceOnChanges")}
    assert actual == expected


@pytest.mark.parametrize("token", TYPES)
def test_type(schema: Json, token: str) -> None:
    """A connection's fields, required flags, types and defaults are those of the SDK's class."""
    declared = schema["types"][token]
    compare_inputs(declared["properties"], declared.get("required", []), TYPES[token])
    source = inspect.getsource(TYPES[token].__init__)  # type: ignore[misc]
    for name, value in re.findall(r"if (\w+) is None:\s+\w+ = ('\w+'|\d+)", source):
        field = input_type_py_to_pulumi_names(TYPES[token])[name]
        assert str(declared["properties"][field]["default"]) == value.strip("'"), field
    assert sum("default" in given for given in declared["properties"].values()) == len(
        re.findall(r"if \w+ is None:\s+\w+ = ", source)
    )


@pytest.mark.parametrize("token", LOGGING)
def test_logging(schema: Json, token: str) -> None:
    """The logging modes are those of the SDK."""
    modes = {item["value"] for item in schema["types"][token]["enum"]}
    assert modes == {mode.value for mode in LOGGING[token]}


def test_run(schema: Json) -> None:
    """The function `run` takes and returns what the SDK's function does."""
    declared = schema["functions"]["command:local:run"]
    given = inspect.signature(sdk.local.run).parameters
    names = {re.sub(r"_(\w)", lambda part: part[1].upper(), name) for name in given} - {"opts"}
    assert set(declared["inputs"]["properties"]) == names
    results = inspect.signature(sdk.local.RunResult.__init__).parameters
    outputs = {re.sub(r"_(\w)", lambda part: part[1].upper(), name) for name in results} - {
        "self",
        "_self_",
        "_Self_",
    }
    assert set(declared["outputs"]["properties"]) == outputs
