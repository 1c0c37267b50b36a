"""Exceptions: what is let through although a rule refuses it, by whom, why and until when."""

import dataclasses
import datetime
from collections.abc import Iterable, Iterator

from policies.config import PolicyException, Settings
from policies.rules import Finding, Resource


def apply(
    resource: Resource, findings: Iterable[Finding], settings: Settings, today: datetime.date
) -> Iterator[Finding]:
    """Yield the findings that no exception covers; an expired one covers nothing and says so.

    Args:
        resource: what the findings are about.
        findings: of one rule.
        settings: of that rule.
        today: the day on which it is asked (UTC).
    """
    if in_force(resource, settings, today):
        return
    expired = next((each for each in settings.exceptions if resource.is_called(each.resource)), None)
    for finding in findings:
        if expired and finding.known:
            note = f"; the exception of {expired.owner} ({expired.reason}) expired on {expired.expires}"
            yield dataclasses.replace(finding, found=finding.found + note)
        else:
            yield finding


def in_force(resource: Resource, settings: Settings, today: datetime.date) -> PolicyException | None:
    """Return the exception that covers a resource on a day, if any."""
    matching = (each for each in settings.exceptions if resource.is_called(each.resource))
    return next((each for each in matching if each.holds(today)), None)


def today() -> datetime.date:
    """The day by UTC."""
    return datetime.datetime.now(datetime.UTC).date()
