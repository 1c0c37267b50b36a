"""What a rule is, and how the Pulumi engine runs it.

A rule is data and a pure function over plain inputs, so that whatever has a resource's inputs can run it.
"""

import functools
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from pulumi_policy import (
    EnforcementLevel,
    PolicyConfigSchema,
    ReportViolation,
    ResourceValidationArgs,
    ResourceValidationPolicy,
)
from pulumi_policy.proxy import UNKNOWN_OBJECT_VALUE, UnknownValueError

from policies import stated
from policies.pods import Misshapen, Unknown, plain

S = TypeVar("S", bound=stated.Settings)


@dataclass(frozen=True)
class Resource:
    """A resource as a rule sees it.

    Args:
        type: Pulumi's type token, such as `kubernetes:apps/v1:Deployment`.
        inputs: its inputs, made by pods.plain().
    """

    type: str
    inputs: Mapping[str, Any]


@dataclass(frozen=True)
class Finding:
    """One thing a rule has to say about a resource.

    Args:
        path: the field, such as `spec.template.spec.containers[0].image`.
        found: what is there and why it is refused.
        fix: what to write instead; empty for a value that is not known yet.
        container: the container's name, where the field belongs to one.
        known: False when the value is not known at preview; the rule looks again at `up`.
    """

    path: str
    found: str
    fix: str = ""
    container: str = ""
    known: bool = True

    def text(self) -> str:
        """Return the message for people."""
        owner = f'container "{self.container}": ' if self.container else ""
        return f"{owner}{self.path} {self.found}" + (f". Fix: {self.fix}" if self.fix else "")


def unreadable(part: Misshapen | tuple[str, Unknown]) -> Finding:
    """Return the finding for a part of a resource that a rule cannot look into."""
    if isinstance(part, Misshapen):
        return Finding(part.path, f"is not {part.expected}", f"write {part.expected} there")
    return not_yet_known(part[0])


def not_yet_known(path: str, container: str = "") -> Finding:
    """Return the finding for a value that only `up` will know."""
    return Finding(path, "is not yet known", container=container, known=False)


@dataclass(frozen=True)
class Rule(Generic[S]):
    """A rule of the pack.

    Args:
        id: its stable name, which settings and reports use.
        description: one sentence, the first line of each report.
        settings: the class of its settings.
        check: what it finds in a resource under given settings; nothing when the resource is in order.
    """

    id: str
    description: str
    settings: type[S]
    check: Callable[[Resource, S], Iterable[Finding]]


def to_policy(rule: Rule[Any]) -> ResourceValidationPolicy:
    """Return the rule as a mandatory policy of the Pulumi SDK."""
    fields = rule.settings.model_json_schema()["properties"]
    return ResourceValidationPolicy(
        name=rule.id,
        description=rule.description,
        enforcement_level=EnforcementLevel.MANDATORY,
        config_schema=PolicyConfigSchema(fields),
        validate=functools.partial(_validate, rule),
    )


def _validate(rule: Rule[Any], args: ResourceValidationArgs, report_violation: ReportViolation) -> None:
    # The SDK does not tell a pack which stack it looks at; the URN does: urn:pulumi:<stack>::<project>::…
    stack = args.urn.removeprefix("urn:pulumi:").split("::", 1)[0]
    settings = stated.load(rule.id, rule.settings, stack, args.get_config())
    findings = list(rule.check(Resource(args.resource_type, plain(args.props)), settings))
    for finding in findings:
        if finding.known:
            report_violation(f"{args.name}: {finding.text()}", None)
    waiting = [finding.text() for finding in findings if not finding.known]
    if waiting:
        # The SDK reports this error as advice at preview, which a mandatory policy cannot do by itself.
        error = UnknownValueError(UNKNOWN_OBJECT_VALUE, [])
        error.message = f"{args.name}: {'; '.join(waiting)}. `pulumi up` checks it before it is created."
        raise error
