"""The pack's settings: what `config.json` states, then a stack's own file, then `--policy-pack-config`.

All three have Pulumi's form, `{"<rule>": {"enforcementLevel": "mandatory", "<setting>": ...}}`.
`config.json` lies beside this file; `config.<stack>.json`, where it exists, holds what differs for one
stack: that is how a rule is advice in dev and mandatory in prod.
"""

import datetime
import functools
import json
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

if TYPE_CHECKING:
    from policies.rules import AnyRule

PACK = Path(__file__).resolve().parent
Level = Literal["advisory", "mandatory", "remediate", "disabled"]
LEVEL = "enforcementLevel"


class ConfigError(ValueError):
    """Settings that cannot be used; the text names file and field."""


class Part(BaseModel):
    """Base of everything in the settings: every field described, no other field taken."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class PolicyException(Part):
    """A resource that need not pass the rule under which this stands, until a day."""

    resource: str = Field(
        pattern=r"^[A-Za-z]+(/[^/\s*]*)?/[^/\s*]+$",
        description="Kind/namespace/name of a Kubernetes object (Namespace//name), or Type/name.",
    )
    owner: str = Field(min_length=1, description="Who answers for it: a team or an address.")
    reason: str = Field(min_length=1, description="Why it has to be.")
    expires: datetime.date = Field(
        description="Last day on which it holds (UTC), for example 2027-01-31; after that, it fails."
    )

    def holds(self, today: datetime.date) -> bool:
        """Whether it still counts on a day."""
        return today <= self.expires


class Settings(Part):
    """Base of a rule's settings."""

    exceptions: tuple[PolicyException, ...] = Field(
        default=(), description="Resources that need not pass this rule, each until its day."
    )


S = TypeVar("S", bound=Settings)


def resolve(path: str) -> Path:
    """Return a path from the settings; a relative one starts at the folder that holds the pack."""
    return PACK.parent / path


def load(rule_id: str, model: type[S], stack: str, given: Mapping[str, Any] | None = None) -> S:
    """Return a rule's settings for a stack.

    Args:
        rule_id: the rule's name, such as `signed-images`.
        model: the rule's settings class.
        stack: the stack's name, which picks `config.<stack>.json`.
        given: what the engine passes from `--policy-pack-config`.

    Raises:
        ConfigError: a file is no JSON, or a field is missing, unknown or of the wrong kind.
    """
    values = {**_stated(rule_id, stack), **(given or {})}
    values.pop(LEVEL, None)
    try:
        return model.model_validate(values)
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(map(str, (rule_id, *problem['loc'])))}: {problem['msg']}, found {problem['input']!r}"
            for problem in error.errors()
        )
        raise ConfigError(f"policy settings ({_sources(stack)}): {problems}") from None


def level(rule_id: str, stack: str, given: Mapping[str, Any] | None = None) -> Level:
    """Return how strictly a rule is enforced for a stack; mandatory where nothing says otherwise.

    Raises:
        ConfigError: it is none of the four levels.
    """
    found = {**_stated(rule_id, stack), **(given or {})}.get(LEVEL, "mandatory")
    try:
        return TypeAdapter[Level](Level).validate_python(found)
    except ValidationError:
        raise ConfigError(
            f"policy settings ({_sources(stack)}): {rule_id}.{LEVEL}: {found!r} is none of"
            f" {', '.join(get_args(Level))}"
        ) from None


def check_files(rules: "Iterable[AnyRule]") -> None:
    """Check `config.json` and every `config.<stack>.json`; a disabled rule's settings may be left out.

    Raises:
        ConfigError: as load() and level(), and for a rule that does not exist.
    """
    known = list(rules)
    for file in sorted(PACK.glob("config*.json")):
        check_names(known, _cached(file), file.name)
        stack = file.stem.removeprefix("config").removeprefix(".")
        for rule in known:
            if level(rule.id, stack) != "disabled":
                load(rule.id, rule.settings, stack)


def check_names(rules: "Iterable[AnyRule]", values: Mapping[str, Any], source: str) -> None:
    """Check that settings are of rules that exist.

    Raises:
        ConfigError: the first that does not.
    """
    names = {rule.id for rule in rules}
    if stray := sorted(set(values) - names):
        raise ConfigError(f"{source}: unknown rule {stray[0]!r}; the rules are {', '.join(sorted(names))}")


def read(file: Path) -> dict[str, dict[str, Any]]:
    """Return the settings in a file of Pulumi's form; a level alone stands for an object that holds it.

    Raises:
        ConfigError: it cannot be read, or has another form.
    """
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{file.name}: cannot be read as JSON: {error}") from None
    if isinstance(content, dict):
        content.pop("$schema", None)
        content = {key: {LEVEL: value} if isinstance(value, str) else value for key, value in content.items()}
    if not isinstance(content, dict) or not all(isinstance(value, dict) for value in content.values()):
        raise ConfigError(f"{file.name}: must be an object of rules, each an object of settings")
    return content


def rule_schema(model: type[Settings]) -> dict[str, Any]:
    """Return a rule's JSON schema as the engine takes it: whole in itself, and without defaults.

    The engine would send a default along, over what the files state.
    """
    schema = model.model_json_schema()
    schema = _inlined(schema, schema.pop("$defs", {}))
    return {"properties": schema["properties"]}


def file_schema(rules: "Iterable[AnyRule]") -> dict[str, Any]:
    """Return the JSON schema of a settings file, which editors use."""
    levels = {"enum": list(get_args(Level)), "description": "What a violation does."}
    properties: dict[str, Any] = {"$schema": {"type": "string"}}
    for rule in sorted(rules, key=lambda rule: rule.id):
        fields = {LEVEL: levels, **rule_schema(rule.settings)["properties"]}
        properties[rule.id] = {
            "type": "object",
            "description": rule.description,
            "additionalProperties": False,
            "properties": fields,
        }
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "Settings of the policy pack",
        "type": "object",
        "additionalProperties": False,
        "properties": properties,
    }


def _inlined(value: Any, definitions: Mapping[str, Any]) -> Any:
    if isinstance(value, dict):
        if "$ref" in value:
            return _inlined(definitions[value["$ref"].rpartition("/")[2]], definitions)
        return {key: _inlined(item, definitions) for key, item in value.items() if key != "default"}
    if isinstance(value, list):
        return [_inlined(item, definitions) for item in value]
    return value


def _stated(rule_id: str, stack: str) -> dict[str, Any]:
    return {**_file("config.json").get(rule_id, {}), **_file(f"config.{stack}.json").get(rule_id, {})}


def _file(name: str) -> dict[str, dict[str, Any]]:
    return _cached(PACK / name)


@functools.cache
def _cached(file: Path) -> dict[str, dict[str, Any]]:
    return read(file) if file.exists() else {}


def _sources(stack: str) -> str:
    own = f"config.{stack}.json"
    return f"config.json, {own + ', ' if (PACK / own).exists() else ''}--policy-pack-config"


if __name__ == "__main__":
    from policies.catalog import RULES

    json.dump(file_schema(RULES), sys.stdout, indent=2, sort_keys=True)
    sys.stdout.write("\n")
