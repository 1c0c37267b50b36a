"""Command line: the rules on files, without the engine, for CI: `python -m policies.check`."""

import argparse
import dataclasses
import io
import itertools
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from policies import config, exceptions, formats, reports, signatures, sources
from policies.catalog import RULES
from policies.naming import Named, named
from policies.reports import Entry, Report, Screen, Selected
from policies.rules import AnyRule, Finding, Resource, Rule, StackRule
from policies.sources import Found
from policies.values import Edit, edited, text_path

WRITERS: dict[str, Callable[[Report], str]] = {
    "json": reports.as_json,
    "junit": formats.junit,
    "sarif": formats.sarif,
}
EXAMPLE = (
    "example: helm template chart | python -m policies.check --stack prod --format sarif --output out.sarif"
)


class CheckError(Exception):
    """The check cannot run; the text says why."""


def remediate(found: Found, rules: Sequence[Selected], problems: list[str]) -> tuple[Found, list[Entry]]:
    """Return a resource with what the rules at level remediate set in it, and what that was.

    Args:
        found: the resource.
        rules: all that run.
        problems: what a rule could not look at is added here.
    """
    edits: list[tuple[Selected, Edit]] = []
    for selected in rules:
        rule, resource = selected.rule, found.resource
        if selected.level != "remediate" or not isinstance(rule, Rule) or rule.remediate is None:
            continue
        if not rule.applies(resource.type) or exceptions.in_force(
            resource, selected.settings, exceptions.today()
        ):
            continue
        with _guarded(rule, found, problems):
            own = list(rule.remediate(resource, selected.settings))
            inputs = edited(resource.inputs, own)
            found = dataclasses.replace(found, resource=dataclasses.replace(resource, inputs=inputs))
            edits += [(selected, edit) for edit in own]
    return found, [
        Entry(selected, found, Finding(text_path(edit.path), f"is set to {edit.value!r}"), is_set=True)
        for selected, edit in edits
    ]


def evaluate(found: Sequence[Found], rules: Sequence[Selected], problems: list[str]) -> Iterator[Entry]:
    """Yield what the rules say of resources.

    Args:
        found: the resources, after remediate(): the engine, too, sets what is to be set before it checks.
        rules: those to run.
        problems: what a rule could not look at is added here.
    """
    for selected in rules:
        rule = selected.rule
        if isinstance(rule, StackRule):
            with _guarded(rule, None, problems):
                yield from _of_stack(selected, rule, found)
            continue
        for each in found:
            if rule.applies(each.resource.type):
                with _guarded(rule, each, problems):
                    yield from _entries(selected, each, rule.check(each.resource, selected.settings))


def _of_stack(selected: Selected, rule: StackRule[Any], found: Sequence[Found]) -> Iterator[Entry]:
    by_resource = {id(each.resource): each for each in found}
    for resource, finding in rule.check([each.resource for each in found], selected.settings):
        yield from _entries(selected, by_resource[id(resource)], [finding])


def _entries(selected: Selected, found: Found, findings: Iterable[Finding]) -> Iterator[Entry]:
    today = exceptions.today()
    exception = exceptions.in_force(found.resource, selected.settings, today)
    if exception is None:
        findings = exceptions.apply(found.resource, findings, selected.settings, today)
    for finding in findings:
        yield Entry(selected, found, finding, exception)


@contextmanager
def _guarded(rule: AnyRule, found: Found | None, problems: list[str]) -> Iterator[None]:
    """Make a rule's fault a problem: nothing passes because a rule failed."""
    try:
        yield
    except Exception as error:
        what = f"{found.resource.source}: {found.resource.identity}" if found else "all resources"
        problems.append(f"{what}: rule {rule.id} failed: {type(error).__name__}: {error}")


def select(names: Sequence[str], stack: str, settings: Path | None) -> list[Selected]:
    """Return the rules to run, with level and settings of a stack.

    Args:
        names: their ids; none for all.
        stack: picks `config.<stack>.json`.
        settings: a file of Pulumi's policy-config form, over the pack's own.

    Raises:
        ConfigError: a file cannot be used.
        CheckError: no rule is left.
    """
    config.check_files(RULES)
    given = config.read(settings) if settings else {}
    every = given.pop("all", {})  # as the engine takes it: the level of rules that have none of their own
    config.check_names(RULES, given, settings.name if settings else "")
    selected = []
    for rule in RULES:
        own = {**every, **given.get(rule.id, {})}
        level = config.level(rule.id, stack, own)
        if level != "disabled" and (not names or rule.id in names):
            selected.append(Selected(rule, level, config.load(rule.id, rule.settings, stack, own)))
    if not selected:
        raise CheckError("no rule to run: what was asked for is disabled")
    return selected


def check(names: Sequence[str], rules: Sequence[Selected], *, is_strict: bool = False) -> Report:
    """Check files.

    Args:
        names: files and folders; `-` is standard input.
        rules: those to run.
        is_strict: whether what is not yet known counts.
    """
    start = time.monotonic()
    reading = sources.read(names)
    problems = reading.problems
    if not reading.found and not problems:
        shown = ", ".join("<stdin>" if name == sources.STDIN else name for name in names)
        problems.append(f"{shown}: no resource found")
    entries: list[Entry] = []
    found = []
    for each in reading.found:
        after, edits = remediate(each, rules, problems)
        found.append(after)
        entries += edits
    _prepare(rules, [each.resource for each in found], problems)
    entries += evaluate(found, rules, problems)
    seconds = time.monotonic() - start
    return Report(rules, found, entries, problems, reading.skipped, seconds, is_strict)


def _prepare(rules: Sequence[Selected], resources: Sequence[Resource], problems: list[str]) -> None:
    """Verify all images at once; without the means to do so the check is not complete."""
    for selected in rules:
        settings = selected.settings
        if not isinstance(settings, signatures.SignatureSettings):
            continue
        try:
            signatures.prefetch(resources, settings)
        except config.ConfigError as error:
            problems.append(str(error))
        images = itertools.chain.from_iterable(named(each) for each in resources)
        if shutil.which("cosign") is None and any(
            isinstance(each, Named) and each.image.digest for each in images
        ):
            problems.append("cosign is not on PATH, so no signature was checked: run `. ./env.sh` first")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m policies.check",
        description="Checks with the policy pack's rules: Kubernetes manifests, what `helm template`,"
        " `pulumi preview --json --show-sames` and `pulumi stack export` print, and the file of"
        " `pulumi preview --save-plan`.",
        epilog=f"exit codes: 0 clean, 1 violations, 2 could not run. {EXAMPLE}",
    )
    parser.add_argument("files", nargs="*", metavar="FILE", help="file or folder; - or none: standard input")
    parser.add_argument("--stack", default="", help="whose settings count: config.<stack>.json")
    parser.add_argument("--config", type=Path, metavar="FILE", help="settings over those, as for pulumi")
    parser.add_argument("--format", choices=("table", *WRITERS), default="table", help="default: table")
    parser.add_argument(
        "--output", type=Path, metavar="FILE", help="where the report goes, not to the screen"
    )
    parser.add_argument(
        "--rule",
        action="append",
        default=[],
        choices=[rule.id for rule in RULES],
        metavar="ID",
        help="only this rule; may be given again",
    )
    parser.add_argument("--strict", action="store_true", help="what is not yet known counts as a violation")
    parser.add_argument("--rules", action="store_true", help="list the rules and end")
    return parser


def _screen() -> Screen:
    return Screen(sys.stdout.isatty(), (sys.stdout.encoding or "").lower().replace("-", "") != "utf8")


def _run(options: argparse.Namespace) -> int:
    rules = select(options.rule, options.stack, options.config)
    if options.rules:
        sys.stdout.write(reports.listing(rules, _screen()))
        return 0
    if not options.files and sys.stdin is not None and sys.stdin.isatty():
        raise CheckError("no file given; `-` is standard input, --help has an example")
    report = check(options.files or [sources.STDIN], rules, is_strict=options.strict)
    if options.format == "table":
        text = reports.table(report, Screen() if options.output else _screen())
    else:
        text = WRITERS[options.format](report)
        for line in (*(f"error: {problem}" for problem in report.problems), report.summary()):
            print(reports.visible(line), file=sys.stderr)
    if options.output:
        options.output.write_text(text, encoding="utf-8")
    else:
        sys.stdout.write(text)
        sys.stdout.flush()
    return report.exit_code


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; exit codes: 0 clean, 1 violations, 2 could not run."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        return _run(_parser().parse_args(arguments))
    except (config.ConfigError, CheckError) as error:
        said = str(error)
    except OSError as error:
        said = f"the report cannot be written: {error.strerror or error}"
    except KeyboardInterrupt:
        said = "interrupted"
    except Exception as error:
        said = f"internal: {type(error).__name__}: {error}"
    print(f"error: {reports.visible(said)}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
