"""The pack's settings: what `config.json` states, then a stack's own file, then `--policy-pack-config`.

All three have Pulumi's form, `{"<rule>": {"<setting>": ...}}`. `config.json` lies beside this file;
`config.<stack>.json`, where it exists, holds what differs for one stack. Enforcement levels are the engine's:
it takes them from `--policy-pack-config` alone, so the files cannot hold them. No setting has a default in
code: the engine would send it along, over what the files state.
"""

import functools
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

if TYPE_CHECKING:
    from policies.rules import Rule

PACK = Path(__file__).resolve().parent


class ConfigError(ValueError):
    """Settings that cannot be used; the text names file and field."""


class Settings(BaseModel):
    """Base of a rule's settings: every field described, no other field taken."""

    model_config = ConfigDict(extra="forbid", frozen=True)


S = TypeVar("S", bound=Settings)


def resolve(path: str) -> Path:
    """Return a path from the settings; a relative one starts at the folder that holds the pack."""
    return PACK.parent / path


def load(rule_id: str, model: type[S], stack: str, given: Mapping[str, Any]) -> S:
    """Return a rule's settings for a stack.

    Args:
        rule_id: the rule's name, such as `signed-images`.
        model: the rule's settings class.
        stack: the stack's name, which picks `config.<stack>.json`.
        given: what the engine passes from `--policy-pack-config`.

    Raises:
        ConfigError: a file is no JSON, or a field is missing, unknown or of the wrong kind.
    """
    own = PACK / f"config.{stack}.json"
    values = {**_read(PACK / "config.json").get(rule_id, {}), **_read(own).get(rule_id, {}), **given}
    try:
        return model.model_validate(values)
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(map(str, (rule_id, *problem['loc'])))}: {problem['msg']}, found {problem['input']!r}"
            for problem in error.errors()
        )
        source = f"{own.name}, " if own.exists() else ""
        raise ConfigError(
            f"policy settings (config.json, {source}--policy-pack-config): {problems}"
        ) from None


def check_files(rules: "Iterable[Rule[Any]]") -> None:
    """Check `config.json` and every `config.<stack>.json`.

    Raises:
        ConfigError: as load(), and for a rule that does not exist.
    """
    known = list(rules)
    names = {rule.id for rule in known}
    for file in sorted(PACK.glob("config*.json")):
        stray = sorted(set(_read(file)) - names)
        if stray:
            raise ConfigError(
                f"{file.name}: unknown rule {stray[0]!r}; the rules are {', '.join(sorted(names))}"
            )
        stack = file.stem.removeprefix("config").removeprefix(".")
        for rule in known:
            load(rule.id, rule.settings, stack, {})


@functools.cache
def _read(file: Path) -> dict[str, dict[str, Any]]:
    if not file.exists():
        return {}
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{file.name}: cannot be read as JSON: {error}") from None
    if not isinstance(content, dict) or not all(isinstance(value, dict) for value in content.values()):
        raise ConfigError(f"{file.name}: must be an object of rules, each an object of settings")
    return content
