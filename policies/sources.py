"""Resources read from files: Kubernetes manifests, and what the Pulumi engine writes."""

import gc
import itertools
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias

from pulumi_policy.deserialize import SPECIAL_SECRET_SIG, SPECIAL_SIG_KEY

from policies.documents import Document, DocumentError, parse, read_json
from policies.rules import Resource
from policies.values import Hidden, plain

STDIN = "-"
_SUFFIXES = frozenset((".yaml", ".yml", ".json"))
_MOST_BYTES = 256 << 20
# What `pulumi preview --json` writes in a secret's place, and in that of a list or object around one.
_MASK = "[secret]"


@dataclass(frozen=True)
class Found:
    """A resource and where it was read.

    Args:
        resource: the resource.
        file: the file's name as given.
        document: what holds it, where the file was a manifest.
    """

    resource: Resource
    file: str
    document: Document | None = None

    def line_of(self, path: str) -> int:
        """Return the line of a field, from 1; 0 where lines mean nothing, as in the engine's files."""
        return self.document.line_of(path) if self.document and self.document.node else 0


@dataclass
class Reading:
    """What reading some files gave.

    Args:
        found: the resources.
        problems: what could not be read, and why.
        skipped: what lies in a folder and holds no resource.
    """

    found: list[Found] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)


def read(names: Iterable[str]) -> Reading:
    """Read files, folders (their `*.yaml`, `*.yml` and `*.json`), and `-` for standard input.

    A file that cannot be read is a problem; the others are read all the same.
    """
    reading = Reading()
    collects = gc.isenabled()
    gc.disable()  # trees of marks hold no cycles; looking for some takes three times as long as reading them
    try:
        for name in names:
            path = Path(name)
            if name != STDIN and path.is_dir():
                for file in _files(path, reading):
                    _read_file(str(file), reading, is_named=False)
            else:
                _read_file(name, reading, is_named=True)
    finally:
        if collects:
            gc.enable()
    return reading


def _files(folder: Path, reading: Reading) -> Iterator[Path]:
    def refused(error: OSError) -> None:
        reading.problems.append(f"{error.filename}: cannot be read: {error.strerror}")

    for place, folders, files in os.walk(folder, onerror=refused):
        folders.sort()
        reading.skipped += [
            f"{Path(place, each)}: is a link to a folder"
            for each in folders
            if Path(place, each).is_symlink()
        ]
        for name in sorted(files):
            path = Path(place, name)
            if path.suffix.lower() in _SUFFIXES:
                if path.is_file() or path.is_symlink():
                    yield path
                else:
                    reading.skipped.append(f"{path}: is no regular file")


def _read_file(name: str, reading: Reading, *, is_named: bool) -> None:
    shown = "<stdin>" if name == STDIN else name
    try:
        documents = parse(_content(name))
    except OSError as error:
        reading.problems.append(f"{shown}: cannot be read: {error.strerror or error}")
        return
    except DocumentError as error:
        reading.problems.append(f"{shown}{f':{error.line}' if error.line else ''}: {error}")
        return
    for document in documents:
        where = f"{shown}:{document.line}" if document.node else shown
        try:
            if (found := _resources(document)) is not None:
                for resource, part in found:
                    reading.found.append(_placed(resource, shown, part))
            elif document.value is not None:
                notes = reading.problems if is_named else reading.skipped
                notes.append(f"{where}: is no manifest (it lacks apiVersion or kind) and nothing of Pulumi's")
        except DocumentError as error:
            reading.problems.append(f"{f'{shown}:{error.line}' if error.line else where}: {error}")


def _content(name: str) -> bytes:
    if name == STDIN:
        if sys.stdin is None:
            raise DocumentError("is closed")
        return _bounded(sys.stdin.buffer)
    with Path(name).open("rb") as file:
        return _bounded(file)


def _bounded(file: BinaryIO) -> bytes:
    content = file.read(_MOST_BYTES + 1)
    if len(content) > _MOST_BYTES:
        raise DocumentError(f"is longer than {_MOST_BYTES >> 20} MiB")
    return content


def _placed(resource: Resource, file: str, document: Document) -> Found:
    line = f":{document.line}" if document.node else ""
    return Found(replace(resource, source=f"{file}{line}"), file, document)


def _resources(document: Document) -> Iterator[tuple[Resource, Document]] | None:
    """Return the resources of a document, or None if it has no form that is known here."""
    value = document.value
    if isinstance(value, list) and value:
        parts = [_resources(document.item(index)) for index in range(len(value))]
        whole = [part for part in parts if part is not None]
        return itertools.chain.from_iterable(whole) if len(whole) == len(parts) else None
    if isinstance(value, Mapping):
        return next((take(document) for has_form, take in _FORMS if has_form(value)), None)
    return None


def _is_manifest(value: Mapping[str, Any]) -> bool:
    return "kind" in value and "apiVersion" in value


def _manifests(document: Document) -> Iterator[tuple[Resource, Document]]:
    """Yield a manifest, or what a list of any kind holds (kubectl takes them apart likewise)."""
    value = document.value
    version, kind = (_text(document, key) for key in ("apiVersion", "kind"))
    if kind.endswith("List") and "items" in value:
        items = value["items"] or []
        if not isinstance(items, list):
            raise DocumentError(f"{kind}: items is no list", document.line_of("items"))
        whole = document.item("items")
        for index, item in enumerate(items):
            part = whole.item(index)
            if not isinstance(item, Mapping):
                raise DocumentError(f"{kind}: items[{index}] is no object", part.line)
            if kind != "List":  # a list of one kind need not say it again
                item = {"apiVersion": version, "kind": kind.removesuffix("List"), **item}
            yield from _manifests(replace(part, value=item))
        return
    token = "core/v1" if version == "v1" else version
    metadata = value.get("metadata")
    names = metadata if isinstance(metadata, Mapping) else {}
    name = names.get("name") or names.get("generateName") or ""
    yield Resource(f"kubernetes:{token}:{kind}", value, name if isinstance(name, str) else ""), document


def _text(document: Document, key: str) -> str:
    value = document.value.get(key)
    if not isinstance(value, str) or not value or ":" in value:
        found = "is missing" if value is None else f"is {value!r}"
        raise DocumentError(f"{key} {found}: a manifest has apiVersion and kind", document.line_of(key))
    return value


def _is_preview(value: Mapping[str, Any]) -> bool:
    steps = value.get("steps")
    return "changeSummary" in value or (
        isinstance(steps, list)
        and bool(steps)
        and all(isinstance(step, Mapping) and {"op", "urn"} <= step.keys() for step in steps)
    )


def _preview(document: Document) -> Iterator[tuple[Resource, Document]]:
    """Yield what `pulumi preview --json` says will be there."""
    steps = _mappings(document.value, "steps")
    states = {}
    for step in steps:
        if "newState" in step and not str(step.get("op")).startswith(("delete", "discard")):
            states[str(step.get("urn"))] = step["newState"]
    for state in states.values():
        yield _state(state), document
    for each in _mappings(document.value, "diagnostics"):
        if each.get("severity") == "error":
            first = next(iter(str(each.get("message")).splitlines()), "").removeprefix("error: ")
            raise DocumentError(f"the preview failed, so it may lack resources: {first}")
    summary = document.value.get("changeSummary")
    same = summary.get("same") if isinstance(summary, Mapping) else 0
    if isinstance(same, int) and same > (shown := sum(step.get("op") == "same" for step in steps)):
        raise DocumentError(
            f"the preview leaves out {same - shown} unchanged resources:"
            " `pulumi preview --json --show-sames` shows them"
        )


def _plan(document: Document) -> Iterator[tuple[Resource, Document]]:
    """Yield what the file of `pulumi preview --save-plan` says will be there.

    It holds differences, so that only a resource that is new stands there whole.
    """
    plans = document.value["resourcePlans"]
    if not isinstance(plans, Mapping) or not all(isinstance(plan, Mapping) for plan in plans.values()):
        raise DocumentError("resourcePlans is no object of objects")
    partial = []
    for urn, plan in plans.items():
        goal = plan.get("goal")
        if goal is None:
            continue  # a deletion
        if not isinstance(goal, Mapping) or plan.get("steps") != ["create"]:
            partial.append(urn)
            continue
        difference = goal.get("inputDiff")
        inputs = difference.get("adds") if isinstance(difference, Mapping) else difference
        yield _state({"urn": urn, "type": goal.get("type"), "inputs": inputs}), document
    if partial:
        raise DocumentError(
            f"{len(partial)} resources exist already, and a plan holds only what changes in them:"
            " `pulumi preview --json --show-sames` shows them whole"
        )


def _export(document: Document) -> Iterator[tuple[Resource, Document]]:
    """Yield what `pulumi stack export` says is there."""
    for state in _mappings(document.value["deployment"], "resources"):
        if not state.get("delete"):
            yield _state(state), document


def _single(document: Document) -> Iterator[tuple[Resource, Document]]:
    yield _state(document.value), document


def _state(state: Any) -> Resource:
    """Return a resource from the engine's form of it: urn or name, type, inputs."""
    if not isinstance(state, Mapping) or not isinstance(state.get("type"), str):
        raise DocumentError(f"a resource has no type: {str(state)[:80]}")
    inputs = state.get("inputs") or {}
    if not isinstance(inputs, Mapping):
        raise DocumentError(f"{state['type']}: inputs is no object")
    urn = str(state.get("urn", ""))
    # urn:pulumi:<stack>::<project>::<type>::<name>; a name may hold colons.
    name = urn.split("::", 3)[-1] if urn else str(state.get("name", ""))
    return Resource(state["type"], plain(_unmasked(inputs)), name, urn)


def _unmasked(value: Any) -> Any:
    """Copy inputs with secrets as values.plain() takes them: open where the file shows them, else hidden."""
    if isinstance(value, Mapping):
        if value.get(SPECIAL_SIG_KEY) == SPECIAL_SECRET_SIG and isinstance(value.get("plaintext"), str):
            return _unmasked(read_json(value["plaintext"]))
        return {key: _unmasked(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_unmasked(item) for item in value]
    return Hidden() if value == _MASK else value


def _mappings(value: Any, key: str) -> list[Mapping[str, Any]]:
    items = value.get(key) or [] if isinstance(value, Mapping) else None
    if not isinstance(items, list) or not all(isinstance(item, Mapping) for item in items):
        raise DocumentError(f"{key} is no list of objects")
    return items


_HasForm: TypeAlias = Callable[[Mapping[str, Any]], bool]
_Take: TypeAlias = Callable[[Document], Iterator[tuple[Resource, Document]]]
_FORMS: tuple[tuple[_HasForm, _Take], ...] = (
    (_is_manifest, _manifests),
    (_is_preview, _preview),
    (lambda value: "resourcePlans" in value, _plan),
    (lambda value: "deployment" in value and "version" in value, _export),
    (lambda value: "type" in value and "inputs" in value, _single),
)
