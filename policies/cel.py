"""Pieces of CEL that rules share when they write themselves for the API server."""

import json
import re
from collections.abc import Iterable


def text(value: str) -> str:
    """A string literal."""
    return json.dumps(value)


def texts(values: Iterable[str]) -> str:
    """A list of string literals."""
    return f"[{', '.join(text(value) for value in values)}]"


def has(path: str) -> str:
    """Whether every step of a path is there: `has(c.resources) && has(c.resources.limits)`."""
    steps = path.split(".")
    start = 2 if steps[0] == "variables" else 1
    return " && ".join(f"has({'.'.join(steps[:count])})" for count in range(start + 1, len(steps) + 1))


def glob(pattern: str) -> str:
    """A glob in which `*` is any text, as a regular expression that RE2 and Python read alike."""
    return ".*".join(re.escape(part) for part in pattern.split("*"))


def labels(name: str) -> str:
    """The labels of an object that may have none."""
    return f"({has(f'{name}.metadata.labels')} ? {name}.metadata.labels : {{}})"
