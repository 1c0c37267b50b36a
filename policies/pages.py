"""Documentation pages of the rules, made from the docstrings of their checks: `python -m policies.pages`."""

import inspect
import json
import re
import sys
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from policies.config import PACK
from policies.rules import AnyRule, Rule

FOLDER = PACK.parent / "docs" / "policies"
_FENCE = re.compile(r"```(yaml|json)\n(.*?)\n```", re.S)
_MADE = "<!-- Made by `python -m policies.pages` from the rules' docstrings. -->"
_USE = """\
`pulumi preview --policy-pack policies` runs these rules in the engine, `python -m policies.check` on files:
manifests, what `helm template`, `pulumi preview --json --show-sames` or `pulumi stack export` prints, and the
file of a new stack's `pulumi preview --save-plan`.

```
helm template chart | python -m policies.check --stack prod
pulumi preview --json --show-sames | python -m policies.check --format sarif --output policies.sarif
```

Pulumi hides secrets in its files, and with them the list or object around each; that is then not yet known,
while the engine sees it. `--show-secrets` opens them in a plan and in an export, not in a preview's JSON.

Exit codes: 0 clean, 1 violations, 2 something could not be checked. What is not known at preview is shown as
such and counts with `--strict`. Mandatory and remediate count, advisory is shown, disabled does not run:
`policies/config.json` and, for `--stack`, `policies/config.<stack>.json` say which rule is which.

`--format json` has `exitCode`, `summary`, `problems` (what could not be checked), `skipped` (what lies in a
folder and holds no resource) and `findings`, each with

| key | |
| --- | --- |
| `rule`, `severity`, `level` | the rule and how it is enforced |
| `status` | violation, unknown, advice, remediated (Pulumi sets it) or exception |
| `resource`, `type`, `urn` | Kind/namespace/name, Pulumi's type, Pulumi's name if there is one |
| `source` | file:line |
| `path`, `container` | the field, and the container it belongs to |
| `found`, `fix` | what is there, and what to write instead |
| `known` | false if only `pulumi up` will know the value |
| `exception` | who lets it through, why, until when |"""
_CLUSTER = """\
Rules that are enforced in the cluster are ValidatingAdmissionPolicies, made from the same settings.
Those that are not say why. For signatures, an admission controller that reaches the registry closes the gap:
Sigstore's policy-controller (ClusterImagePolicy), Kyverno (verifyImages) and Connaisseur take the same public
keys. Without one, what is applied past Pulumi still needs a digest and an allowed registry."""


class PageError(ValueError):
    """A docstring that is no page: it lacks a part."""


@dataclass(frozen=True)
class Example:
    """An example of a rule's page.

    Args:
        language: `yaml` (manifests) or `json` (resources as the engine writes them).
        text: what to check.
    """

    language: str
    text: str

    def block(self) -> str:
        """Return it as Markdown."""
        return f"```{self.language}\n{self.text}\n```"


@dataclass(frozen=True)
class Page:
    """What a rule's docstring says.

    Args:
        prose: paragraphs.
        good: what passes.
        bad: what is refused.
    """

    prose: str
    good: Example
    bad: Example

    def help(self) -> str:
        """Return it as Markdown."""
        return f"{self.prose}\n\n## Good\n\n{self.good.block()}\n\n## Bad\n\n{self.bad.block()}"


def read_page(rule: AnyRule) -> Page:
    """Return a rule's page.

    Raises:
        PageError: its docstring lacks prose, `Good:` or `Bad:`.
    """
    text = inspect.getdoc(rule.check) or ""
    parts = re.split(r"^(Good|Bad):\n", text, flags=re.M)
    sections = dict(zip(parts[1::2], parts[2::2], strict=True))
    examples = {}
    for name in ("Good", "Bad"):
        match = _FENCE.search(textwrap.dedent(sections.get(name, "")))
        if match is None:
            raise PageError(f"rule {rule.id}: its docstring has no example under {name}:")
        examples[name] = Example(match[1], match[2])
    if not (prose := parts[0].strip()):
        raise PageError(f"rule {rule.id}: its docstring has no text")
    return Page(prose, examples["Good"], examples["Bad"])


def render(rules: Sequence[AnyRule]) -> dict[str, str]:
    """Return the text of every file in docs/policies."""
    pages = {f"{rule.id}.md": _rule_page(rule) for rule in rules}
    return {"README.md": _overview(rules), **pages}


def _rule_page(rule: AnyRule) -> str:
    page = read_page(rule)
    parts = [
        _MADE,
        f"# {rule.id}",
        page.prose,
        f"Severity: {rule.severity}. {_remediation(rule)}",
        "## Good",
        page.good.block(),
        "## Bad",
        page.bad.block(),
        "## In the cluster",
        _in_cluster(rule),
        f"## Settings\n\nUnder `{rule.id}` in `policies/config.json`, `policies/config.<stack>.json` or"
        " `--policy-pack-config`, beside `enforcementLevel`.",
        _table(("setting", "type", "default", ""), list(_settings(rule.settings))),
    ]
    return "\n\n".join(parts) + "\n"


def _overview(rules: Sequence[AnyRule]) -> str:
    rows = [
        (
            f"[{rule.id}]({rule.id}.md)",
            rule.description,
            rule.severity,
            "yes" if _is_remediated(rule) else "no",
            "yes" if _admits(rule) else f"no: {_outside(rule)}",
        )
        for rule in rules
    ]
    columns = ("rule", "what it asks", "severity", "remediated", "enforced in the cluster")
    return "\n\n".join((_MADE, "# Rules", _table(columns, rows), _CLUSTER, "## Checking files", _USE)) + "\n"


def _is_remediated(rule: AnyRule) -> bool:
    return isinstance(rule, Rule) and rule.remediate is not None


def _admits(rule: AnyRule) -> bool:
    return isinstance(rule, Rule) and rule.admission is not None


def _outside(rule: AnyRule) -> str:
    return " ".join(rule.outside.split())


def _remediation(rule: AnyRule) -> str:
    if _is_remediated(rule):
        return "At enforcement level `remediate` Pulumi sets what is missing, where that is safe."
    return "Nothing is set by itself."


def _in_cluster(rule: AnyRule) -> str:
    if _admits(rule):
        return "Enforced by a ValidatingAdmissionPolicy with the same settings, past Pulumi too."
    return f"Not enforced there. {_outside(rule)}"


def _settings(model: type[BaseModel]) -> Iterator[tuple[str, str, str, str]]:
    schema = model.model_json_schema()
    yield from _fields(schema, schema.get("$defs", {}), "")


def _fields(
    schema: Mapping[str, Any], definitions: Mapping[str, Any], prefix: str
) -> Iterator[tuple[str, str, str, str]]:
    required = schema.get("required", ())
    for name, field in schema.get("properties", {}).items():
        inner = _inner(field, definitions)
        default = (
            "required" if name in required else f"`{json.dumps(field.get('default'), ensure_ascii=False)}`"
        )
        yield f"`{prefix}{name}`", _type(field, definitions), default, field.get("description", "")
        if inner:
            yield from _fields(inner, definitions, f"{prefix}{name}{'[]' if 'items' in field else ''}.")


def _inner(field: Mapping[str, Any], definitions: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Return the schema of the object that a field, or each item of it, holds."""
    reference = field.get("$ref") or (field.get("items") or {}).get("$ref")
    return definitions[reference.rpartition("/")[2]] if reference else None


def _type(field: Mapping[str, Any], definitions: Mapping[str, Any]) -> str:
    if "enum" in field:
        return ", ".join(f"`{value}`" for value in field["enum"])
    if "anyOf" in field:
        return " or ".join(_type(choice, definitions) for choice in field["anyOf"])
    if "items" in field:
        return f"list of {_type(field['items'], definitions)}"
    if "$ref" in field:
        found = definitions[field["$ref"].rpartition("/")[2]]
        return "object" if "properties" in found else _type(found, definitions)
    return str(field.get("format") or field.get("type", "any"))


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(
        f"| {' | '.join(' '.join(cell.replace('|', chr(92) + '|').split()) for cell in line)} |"
        for line in lines
    )


def main() -> int:
    """Write the pages, and take away those of rules that are gone."""
    from policies.catalog import RULES

    pages = render(RULES)
    FOLDER.mkdir(parents=True, exist_ok=True)
    for file in FOLDER.glob("*.md"):
        if file.name not in pages:
            file.unlink()
    for name, text in pages.items():
        (FOLDER / name).write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
