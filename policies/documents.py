"""Documents of YAML and JSON files from anywhere: read as Kubernetes reads them, or refused with the line."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import yaml

_DEEPEST = 200
_MOST_VALUES = 1_000_000  # in one document, with aliases written out
_STEP = re.compile(r'\["([^"]*)"\]|\[(\d+)\]|([^.\[]+)')
_MERGE = "tag:yaml.org,2002:merge"
_TAGS = frozenset(
    f"tag:yaml.org,2002:{name}" for name in ("null", "bool", "int", "float", "str", "seq", "map", "merge")
)


class DocumentError(ValueError):
    """A file that cannot be read; the text says why.

    Args:
        reason: why.
        line: where, from 1; 0 where it is the whole file.
    """

    def __init__(self, reason: str, line: int = 0) -> None:
        super().__init__(reason)
        self.line = line


@dataclass(frozen=True)
class Document:
    """One document of a file.

    Args:
        value: its content in dicts, lists and scalars; None for an empty document.
        line: where it begins, from 1.
        node: the same with marks, where it was YAML.
    """

    value: Any
    line: int = 1
    node: yaml.Node | None = None

    def item(self, step: str | int) -> "Document":
        """Return one of its values as a document of its own."""
        node = _child(self.node, step)
        return Document(self.value[step], node.start_mark.line + 1 if node else self.line, node)

    def line_of(self, path: str) -> int:
        """Return the line of a field such as `spec.containers[0].image`, or of what would hold it."""
        node, line = self.node, self.line
        for quoted, index, name in _STEP.findall(path):
            node = _child(node, int(index) if index else quoted or name)
            if node is None:
                break
            line = node.start_mark.line + 1
        return line


def parse(content: bytes) -> list[Document]:
    """Return the documents of a JSON or YAML file.

    Raises:
        DocumentError: it is neither, a key stands twice, it nests or its aliases grow beyond bounds.
    """
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise DocumentError(f"is not UTF-8: byte {content[error.start]:#04x}", line) from None
    try:
        return [Document(_json(text))] if text.lstrip().startswith(("{", "[")) else list(_yaml(text))
    except json.JSONDecodeError as error:
        json_error = DocumentError(f"is not JSON: {error.msg}{_hint(text)}", error.lineno)
    except DocumentError as error:
        raise DocumentError(f"{error}{_hint(text)}", error.line) from None
    try:
        return list(_yaml(text))  # YAML in braces
    except DocumentError:
        raise json_error from None


def _hint(text: str) -> str:
    return " (a template? Render it first, for example with `helm template`)" if "{{" in text else ""


def read_json(text: str) -> Any:
    """Return what a JSON text says.

    Raises:
        DocumentError: it is no JSON, a key stands twice, or it nests beyond bounds.
    """
    try:
        return _json(text)
    except json.JSONDecodeError as error:
        raise DocumentError(f"is not JSON: {error.msg}", error.lineno) from None


def _json(text: str) -> Any:
    try:
        value = json.loads(text, object_pairs_hook=_object, parse_constant=_no_constant)
    except RecursionError:
        raise DocumentError(f"is nested more than {_DEEPEST} deep") from None
    except (json.JSONDecodeError, DocumentError):
        raise
    except ValueError:
        raise DocumentError("is not JSON: a number has thousands of digits") from None
    level, depth = [value], 0
    while level:
        depth += 1
        if depth > _DEEPEST:
            raise DocumentError(f"is nested more than {_DEEPEST} deep")
        level = [
            inner
            for outer in level
            if isinstance(outer, dict | list)
            for inner in (outer.values() if isinstance(outer, dict) else outer)
        ]
    return value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise DocumentError(f"has the key {twice!r} twice in one object")
    return found


def _no_constant(name: str) -> None:
    raise DocumentError(f"is not JSON: {name}")


class _Loader(yaml.CSafeLoader):
    """Reads scalars as the API server's YAML library does (go-yaml 2), and refuses what it refuses.

    Dates and numbers to the base of sixty are text, `y` and `n` are truth values; in PyYAML it is the other
    way round.
    """

    bool_values: ClassVar[dict[str, bool]] = {**yaml.SafeLoader.bool_values, "y": True, "n": False}

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        """Return a node's value; what its tag does not allow is named with its line."""
        try:
            return super().construct_object(node, deep=deep)
        except DocumentError:
            raise
        except (ValueError, LookupError, OverflowError):
            kind = node.tag.rpartition(":")[2]
            raise DocumentError(
                f"is not YAML: no {kind}: {node.value[:40]!r}", node.start_mark.line + 1
            ) from None

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Return a mapping with texts as keys, each once.

        The API server's library makes texts of keys that are numbers or truth values, too.
        """
        if not isinstance(node, yaml.MappingNode):
            raise DocumentError("is not YAML: !!map before another value", node.start_mark.line + 1)
        seen: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode) or key.tag.endswith(":null"):
                raise DocumentError("has a key that is not a text", key.start_mark.line + 1)
            if key.value in seen and key.tag != _MERGE:
                raise DocumentError(
                    f"has the key {key.value!r} twice in one mapping", key.start_mark.line + 1
                )
            seen.add(key.value)
        self.flatten_mapping(node)
        return {key.value: self.construct_object(value, deep=deep) for key, value in node.value}


_Loader.yaml_implicit_resolvers = {}  # none of PyYAML's own
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:bool",
    re.compile(r"(?:y|Y|n|N|yes|Yes|YES|no|No|NO|true|True|TRUE|false|False|FALSE|on|On|ON|off|Off|OFF)\Z"),
    list("yYnNtTfFoO"),
)
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:int",
    re.compile(r"[-+]?(?:0b[01_]+|0[0-7_]+|0x[0-9a-fA-F_]+|0|[1-9][0-9_]*)\Z"),
    list("-+0123456789"),
)
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"(?:[-+]?(?:[0-9][0-9_]*\.[0-9_]*|\.[0-9]+|[0-9]+(?=[eE]))(?:[eE][-+]?[0-9]+)?"
               r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))\Z"),
    list("-+0123456789."),
)  # fmt: skip
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:null", re.compile(r"(?:~|null|Null|NULL|)\Z"), ["~", "n", "N", ""]
)
_Loader.add_implicit_resolver(_MERGE, re.compile(r"<<\Z"), ["<"])


def _yaml(text: str) -> Iterator[Document]:
    try:
        _check_bounds(text)
        loader = _Loader(text)
        try:
            while loader.check_node():
                if (node := loader.get_node()) is not None:
                    yield Document(loader.construct_document(node), node.start_mark.line + 1, node)
        finally:
            loader.dispose()
    except yaml.reader.ReaderError as error:
        line = text.encode()[: error.position].count(b"\n") + 1
        raise DocumentError(f"is not YAML: {error.reason}", line) from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        said = ", ".join(part for part in (error.context, error.problem) if part)
        raise DocumentError(f"is not YAML: {said}", mark.line + 1 if mark else 0) from None
    except yaml.YAMLError as error:
        raise DocumentError(f"is not YAML: {error}") from None


def _check_bounds(text: str) -> None:
    """Refuse what would fill stack or memory, before anything is made of it."""
    sizes: dict[str, int | None] = {}
    counts, names = [0], [""]
    for event in yaml.parse(text, Loader=yaml.CSafeLoader):
        line = event.start_mark.line + 1 if event.start_mark else 0
        if isinstance(event, yaml.DocumentStartEvent):
            sizes, counts = {}, [0]
        elif isinstance(event, yaml.CollectionStartEvent):
            _check_tag(event.tag, line)
            counts.append(1)
            names.append(event.anchor or "")
            sizes[names[-1]] = None
        elif isinstance(event, yaml.CollectionEndEvent):
            sizes[names.pop()] = counts[-1]
            counts[-2:] = [counts[-2] + counts[-1]]
        elif isinstance(event, yaml.ScalarEvent):
            _check_tag(event.tag, line)
            sizes[event.anchor or ""] = 1
            counts[-1] += 1
        elif isinstance(event, yaml.AliasEvent):
            size = sizes.get(event.anchor or "", 1)
            if size is None:
                raise DocumentError(f"has an alias *{event.anchor} to what holds it", line)
            counts[-1] += size
        if len(counts) > _DEEPEST:
            raise DocumentError(f"is nested more than {_DEEPEST} deep", line)
        if counts[-1] > _MOST_VALUES:
            raise DocumentError(f"has more than {_MOST_VALUES} values, aliases written out", line)


def _check_tag(tag: str | None, line: int) -> None:
    if tag not in (None, "!") and tag not in _TAGS:
        raise DocumentError(f"has the tag {tag}, which no manifest has", line)


def _child(node: yaml.Node | None, step: str | int) -> yaml.Node | None:
    if isinstance(node, yaml.SequenceNode) and isinstance(step, int):
        return node.value[step] if step < len(node.value) else None
    if isinstance(node, yaml.MappingNode):
        # The last: what is merged in stands before what the mapping states itself.
        return next((value for key, value in reversed(node.value) if key.value == step), None)
    return None
