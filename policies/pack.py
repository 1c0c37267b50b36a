"""The rules as policies of the Pulumi SDK, which the engine runs at preview and at up."""

import functools
import json
import os
from collections.abc import Iterable, Mapping
from typing import Any

from pulumi_policy import (
    EnforcementLevel,
    Policy,
    PolicyConfigSchema,
    ReportViolation,
    ResourceValidationArgs,
    ResourceValidationPolicy,
    Severity,
    StackValidationArgs,
    StackValidationPolicy,
)
from pulumi_policy.proxy import UNKNOWN_OBJECT_VALUE, UnknownValueError

from policies import config, exceptions
from policies.rules import AnyRule, Finding, Resource, Rule, StackRule
from policies.values import edited, plain

# The engine names the stack to a pack in its environment; without one, only what config.json states counts.
STACK = os.environ.get("PULUMI_STACK", "")


def to_policy(rule: AnyRule) -> Policy:
    """Return the rule as a policy of the Pulumi SDK, enforced as the settings of the stack say."""
    level = EnforcementLevel(config.level(rule.id, STACK))
    schema = PolicyConfigSchema(config.rule_schema(rule.settings)["properties"])
    severity = Severity(rule.severity)
    if isinstance(rule, StackRule):
        look = functools.partial(_validate_stack, rule)
        return StackValidationPolicy(rule.id, rule.description, look, level, schema, severity=severity)
    remediate: Any = functools.partial(_remediate, rule) if rule.remediate else None
    return ResourceValidationPolicy(
        rule.id,
        rule.description,
        functools.partial(_validate, rule),
        level,
        schema,
        remediate,
        severity=severity,
    )


def _validate(rule: Rule[Any], args: ResourceValidationArgs, report_violation: ReportViolation) -> None:
    if not rule.applies(args.resource_type):
        return
    resource = Resource(args.resource_type, plain(args.props), args.name, args.urn)
    settings = _settings(rule, args.get_config())
    findings = exceptions.apply(resource, rule.check(resource, settings), settings, exceptions.today())
    _report([(resource, finding) for finding in findings], report_violation)


def _validate_stack(
    rule: StackRule[Any], args: StackValidationArgs, report_violation: ReportViolation
) -> None:
    settings = _settings(rule, args.get_config())
    resources = [
        Resource(
            each.resource_type,
            plain(each.props),
            each.name,
            each.urn,
            provider=each.provider.urn if each.provider else "",
        )
        for each in args.resources
    ]
    today = exceptions.today()
    _report(
        [
            (resource, finding)
            for resource, found in rule.check(resources, settings)
            for finding in exceptions.apply(resource, [found], settings, today)
        ],
        report_violation,
    )


def _remediate(rule: Rule[Any], args: ResourceValidationArgs) -> Mapping[str, Any] | None:
    if rule.remediate is None or not rule.applies(args.resource_type):
        return None
    resource = Resource(args.resource_type, plain(args.props), args.name, args.urn)
    settings = _settings(rule, args.get_config())
    if exceptions.in_force(resource, settings, exceptions.today()):
        return None
    edits = list(rule.remediate(resource, settings))
    return edited(args.props, edits) if edits else None


def _report(found: Iterable[tuple[Resource, Finding]], report_violation: ReportViolation) -> None:
    waiting = []
    for resource, finding in found:
        text = f"{resource.name}: {finding.text()}"
        if finding.known:
            report_violation(text, resource.urn)
        else:
            waiting.append(text)
    if waiting:
        # The SDK reports this error as advice at preview, which a mandatory policy cannot do by itself.
        error = UnknownValueError(UNKNOWN_OBJECT_VALUE, [])
        error.message = f"{'; '.join(waiting)}. `pulumi up` checks it before it is created."
        raise error


def _settings(rule: AnyRule, given: Mapping[str, Any] | None) -> Any:
    return _loaded(rule, json.dumps(given or {}, sort_keys=True))


@functools.cache
def _loaded(rule: AnyRule, given: str) -> Any:
    return config.load(rule.id, rule.settings, STACK, json.loads(given))
