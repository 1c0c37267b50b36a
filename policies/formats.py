"""Reports for other programs: JUnit XML and SARIF."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote
from xml.etree import ElementTree

from policies.pages import read_page
from policies.reports import Entry, Report, Selected, visible
from policies.rules import Rule
from policies.sources import Found

_SCORES = {"low": "3.0", "medium": "5.5", "high": "8.0", "critical": "9.5"}  # by which code hosts sort
_SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"


def junit(report: Report) -> str:
    """Return JUnit XML: a suite for each rule, a case for each resource that it looks at."""
    root = ElementTree.Element("testsuites", name="policies")
    by_rule: dict[str, dict[int, list[Entry]]] = {selected.rule.id: {} for selected in report.rules}
    for entry in report.entries:
        by_rule[entry.selected.rule.id].setdefault(id(entry.found), []).append(entry)
    for selected in report.rules:
        rule, entries = selected.rule, by_rule[selected.rule.id]
        suite = ElementTree.SubElement(root, "testsuite", name=rule.id)
        for found in report.found:
            if id(found) in entries or not isinstance(rule, Rule) or rule.applies(found.resource.type):
                _case(report, suite, found, entries.get(id(found), ()))
    if report.problems:
        suite = ElementTree.SubElement(root, "testsuite", name="input")
        for problem in report.problems:
            case = ElementTree.SubElement(suite, "testcase", name=visible(problem), classname="input")
            ElementTree.SubElement(case, "error", message=visible(problem), type="problem")
    for suite in root:
        _count(suite, suite)
    _count(root, root)
    root.set("time", f"{report.seconds:.3f}")
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="unicode") + "\n"


def _count(target: ElementTree.Element, tree: ElementTree.Element) -> None:
    for name, tag in (
        ("tests", "testcase"),
        ("failures", "failure"),
        ("errors", "error"),
        ("skipped", "skipped"),
    ):
        target.set(name, str(sum(1 for _ in tree.iter(tag))))


def _case(report: Report, suite: ElementTree.Element, found: Found, entries: Sequence[Entry]) -> None:
    """Add a case: failed for what counts, skipped for what is not yet known or let through, else passed."""
    rule_id = suite.get("name", "")
    case = ElementTree.SubElement(
        suite,
        "testcase",
        name=visible(found.resource.identity),
        classname=rule_id,
        file=visible(found.file),
    )
    against = [entry for entry in entries if report.counts_against(entry)]
    rest = [entry for entry in entries if not report.counts_against(entry)]
    waiting = [entry for entry in rest if entry.status in ("unknown", "exception")]
    if against:
        message = visible(against[0].finding.text())
        ElementTree.SubElement(case, "failure", message=message, type=rule_id).text = _lines(against)
    elif waiting:
        ElementTree.SubElement(case, "skipped", message=visible(_reason(waiting[0])), type=waiting[0].status)
    if rest:
        ElementTree.SubElement(case, "system-out").text = _lines(rest)


def _lines(entries: Sequence[Entry]) -> str:
    return "\n".join(visible(f"{entry.source}: {_reason(entry)}") for entry in entries)


def _reason(entry: Entry) -> str:
    if entry.exception is None:
        return entry.finding.text()
    let = entry.exception
    return f"{entry.finding.text()} (let through for {let.owner} until {let.expires}: {let.reason})"


def sarif(report: Report) -> str:
    """Return SARIF 2.1.0."""
    index = {selected.rule.id: number for number, selected in enumerate(report.rules)}
    run = {
        "tool": {
            "driver": {
                "name": "edge-inference policies",
                "rules": [_rule(selected) for selected in report.rules],
            }
        },
        "invocations": [
            {
                "executionSuccessful": report.exit_code != 2,
                "exitCode": report.exit_code,
                "toolExecutionNotifications": [
                    {"level": "error", "message": {"text": problem}} for problem in report.problems
                ],
            }
        ],
        "columnKind": "unicodeCodePoints",
        "results": [_result(entry, index) for entry in report.entries if not entry.is_set],
    }
    return json.dumps({"$schema": _SCHEMA, "version": "2.1.0", "runs": [run]}, indent=2) + "\n"


def _rule(selected: Selected) -> dict[str, Any]:
    rule, page = selected.rule, read_page(selected.rule)
    return {
        "id": rule.id,
        "shortDescription": {"text": rule.description},
        "fullDescription": {"text": page.prose},
        "help": {"text": page.prose, "markdown": page.help()},
        "defaultConfiguration": {"level": _level(selected)},
        "properties": {"security-severity": _SCORES[rule.severity], "tags": ["security", "policy"]},
    }


def _level(selected: Selected) -> str:
    return "warning" if selected.level == "advisory" else "error"


def _result(entry: Entry, index: Mapping[str, int]) -> dict[str, Any]:
    rule, resource = entry.selected.rule, entry.found.resource
    location: dict[str, Any] = {
        "logicalLocations": [{"fullyQualifiedName": resource.identity, "kind": "resource"}]
    }
    if not entry.found.file.startswith("<"):
        path = Path(entry.found.file)
        location["physicalLocation"] = {
            "artifactLocation": {"uri": path.as_uri() if path.is_absolute() else quote(path.as_posix())},
            "region": {"startLine": max(entry.line, 1)},
        }
    identity = "|".join(
        (rule.id, resource.urn or resource.identity, entry.finding.container, entry.finding.path)
    )
    result: dict[str, Any] = {
        "ruleId": rule.id,
        "ruleIndex": index[rule.id],
        "level": _level(entry.selected),
        "message": {"text": f"{resource.identity}: {entry.finding.text()}"},
        "locations": [location],
        "partialFingerprints": {
            "resourceField/v1": hashlib.sha256(identity.encode(errors="backslashreplace")).hexdigest()
        },
    }
    if not entry.finding.known:
        # "Insufficient information to decide" (SARIF 2.1.0, 3.27.9), which asks for level none.
        result |= {"kind": "open", "level": "none"}
    if entry.exception:
        said = f"{entry.exception.owner}: {entry.exception.reason} (until {entry.exception.expires})"
        result["suppressions"] = [{"kind": "external", "status": "accepted", "justification": said}]
    return result
