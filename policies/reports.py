"""What a check found, as a table for people and as JSON."""

import io
import json
import shutil
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from policies.config import Level, PolicyException, Settings
from policies.rules import AnyRule, Finding
from policies.sources import Found

Status = Literal["violation", "unknown", "advice", "remediated", "exception"]
_TITLES: dict[Status, str] = {
    "violation": "violations",
    "unknown": "not yet known",
    "advice": "advice",
    "remediated": "set by Pulumi (remediate)",
    "exception": "let through by an exception",
}
_NARROWEST = 100


@dataclass(frozen=True)
class Selected:
    """A rule that runs.

    Args:
        rule: the rule.
        level: how it is enforced; never disabled.
        settings: of its own class.
    """

    rule: AnyRule
    level: Level
    settings: Settings


@dataclass(frozen=True)
class Entry:
    """One line of a report.

    Args:
        selected: the rule.
        found: the resource.
        finding: what the rule says of it.
        exception: what lets it through, if anything.
        is_set: whether `remediate` sets it, so that nothing is left to do.
    """

    selected: Selected
    found: Found
    finding: Finding
    exception: PolicyException | None = None
    is_set: bool = False

    @property
    def status(self) -> Status:
        """What it means for the verdict."""
        if self.exception:
            return "exception"
        if self.is_set:
            return "remediated"
        if not self.finding.known:
            return "unknown"
        return "advice" if self.selected.level == "advisory" else "violation"

    @property
    def line(self) -> int:
        """The field's line in the file, 0 where there is none."""
        return self.found.line_of(self.finding.path)

    @property
    def source(self) -> str:
        """File and line of the field."""
        return f"{self.found.file}:{self.line}" if self.line else self.found.file


@dataclass(frozen=True)
class Report:
    """What a check gave.

    Args:
        rules: those that ran.
        found: the resources.
        entries: what the rules said.
        problems: what could not be checked, and why.
        skipped: what lay in a folder and held no resource.
        seconds: how long it took.
        is_strict: whether what is not yet known counts as a violation.
    """

    rules: Sequence[Selected]
    found: Sequence[Found]
    entries: Sequence[Entry]
    problems: Sequence[str] = ()
    skipped: Sequence[str] = ()
    seconds: float = 0
    is_strict: bool = False
    counts: Counter[Status] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "counts", Counter(entry.status for entry in self.entries))

    @property
    def exit_code(self) -> int:
        """0 clean, 1 violations, 2 something could not be checked."""
        if self.problems:
            return 2
        return 1 if self.counts["violation"] or (self.is_strict and self.counts["unknown"]) else 0

    def counts_against(self, entry: Entry) -> bool:
        """Whether an entry is reason enough for exit code 1."""
        return entry.status == "violation" or (self.is_strict and entry.status == "unknown")

    def summary(self) -> str:
        """Return the last line for people."""
        said = [f"{_number(self.counts['violation'], 'violation')}"]
        said += [
            f"{self.counts[status]} {title}" for status, title in _TITLES.items() if status != "violation"
        ]
        said = [text for text in said if not text.startswith("0 ") or text.endswith("violations")]
        if self.problems:
            said.append(f"{_number(len(self.problems), 'problem')}, so the check is not complete")
        what = f"{_number(len(self.found), 'resource')}, {_number(len(self.rules), 'rule')}"
        skipped = f", {_number(len(self.skipped), 'file or document', 'files or documents')} without any"
        return f"{', '.join(said)}; {what}{skipped if self.skipped else ''}, {self.seconds:.1f} s"


def _number(count: int, one: str, many: str = "") -> str:
    return f"{count} {one if count == 1 else many or one + 's'}"


def visible(text: str) -> str:
    """Return a text with what no terminal and no XML should get written as an escape."""
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode("ascii") for char in text
    )


@dataclass(frozen=True)
class Screen:
    """What tables are shown on.

    Args:
        has_color: whether it shows colours.
        is_ascii: whether it shows nothing but ASCII.
    """

    has_color: bool = False
    is_ascii: bool = False

    def console(self) -> Console:
        """Return a console that keeps what is printed."""
        width = max(shutil.get_terminal_size((160, 24)).columns, _NARROWEST)
        return Console(file=io.StringIO(), width=width, force_terminal=self.has_color, highlight=False)


def table(report: Report, screen: Screen) -> str:
    """Return tables for people, with the summary below."""
    console = screen.console()
    for status, title in _TITLES.items():
        entries = [entry for entry in report.entries if entry.status == status]
        if entries:
            view = _exceptions(entries) if status == "exception" else _findings(title, entries)
            view.box = box.ASCII if screen.is_ascii else view.box
            console.print(view)
    for problem in report.problems:
        console.print(Text(f"error: {visible(problem)}", style="red"), soft_wrap=True)
    console.print(Text(report.summary()), soft_wrap=True)
    return _printed(console)


def listing(rules: Sequence[Selected], screen: Screen) -> str:
    """Return the table of rules."""
    console = screen.console()
    rows = ((each.rule.id, each.level, each.rule.severity, each.rule.description) for each in rules)
    view = _rows("rules", ("rule", "level", "severity", "what it asks"), rows, show_lines=False)
    view.box = box.ASCII if screen.is_ascii else view.box
    console.print(view)
    return _printed(console)


def _printed(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def _rows(
    title: str, columns: Sequence[str], rows: Iterable[Sequence[str]], *, show_lines: bool = True
) -> Table:
    view = Table(title=title, title_justify="left", show_lines=show_lines)
    for column in columns:
        view.add_column(column, overflow="fold")
    for row in rows:
        view.add_row(*(Text("\n".join(visible(line) for line in cell.splitlines())) for cell in row))
    return view


def _findings(title: str, entries: Sequence[Entry]) -> Table:
    return _rows(
        title,
        ("rule", "resource", "found", "fix"),
        (
            (
                entry.selected.rule.id,
                f"{visible(entry.found.resource.identity)}\n{visible(entry.source)}",
                f"{entry.finding.subject} {entry.finding.found}",
                entry.finding.fix,
            )
            for entry in entries
        ),
    )


def _exceptions(entries: Sequence[Entry]) -> Table:
    rows = Counter(
        (
            entry.selected.rule.id,
            entry.found.resource.identity,
            entry.exception.owner,
            entry.exception.reason,
            str(entry.exception.expires),
        )
        for entry in entries
        if entry.exception
    )
    columns = ("rule", "resource", "owner", "reason", "until", "findings")
    return _rows(_TITLES["exception"], columns, ((*row, str(count)) for row, count in rows.items()))


def as_json(report: Report) -> str:
    """Return JSON; docs/policies/README.md lists its keys."""
    document = {
        "version": 1,
        "exitCode": report.exit_code,
        "summary": {
            "resources": len(report.found),
            "rules": len(report.rules),
            "seconds": round(report.seconds, 3),
            **{str(status): report.counts[status] for status in _TITLES},
        },
        "findings": [_json_entry(entry) for entry in report.entries],
        "problems": list(report.problems),
        "skipped": list(report.skipped),
    }
    return json.dumps(document, indent=2) + "\n"


def _json_entry(entry: Entry) -> dict[str, Any]:
    finding, resource = entry.finding, entry.found.resource
    found: dict[str, Any] = {
        "rule": entry.selected.rule.id,
        "severity": entry.selected.rule.severity,
        "level": entry.selected.level,
        "status": entry.status,
        "resource": resource.identity,
        "type": resource.type,
        "urn": resource.urn,
        "source": entry.source,
        "path": finding.path,
        "container": finding.container,
        "found": finding.found,
        "fix": finding.fix,
        "known": finding.known,
    }
    if entry.exception:
        found["exception"] = entry.exception.model_dump(mode="json")
    return found
