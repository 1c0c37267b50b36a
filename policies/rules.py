"""What a rule is: data and a pure function over plain inputs, so that whoever has those can run it.

`pack` runs rules in the Pulumi engine, `check` runs them on files, `admission` turns them into policies of
the cluster's API server.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, Literal, TypeAlias, TypeVar

from policies.config import Settings
from policies.pods import Misshapen
from policies.values import Edit, Unknown

S = TypeVar("S", bound=Settings)
Severity = Literal["low", "medium", "high", "critical"]


@dataclass(frozen=True)
class Resource:
    """A resource as a rule sees it.

    Args:
        type: Pulumi's type token, such as `kubernetes:apps/v1:Deployment`.
        inputs: its inputs, made by pods.plain().
        name: its name in the program, or the object's name where there is no program.
        urn: Pulumi's name of it, where there is one.
        source: file and line, where it was read from a file.
        provider: what makes it, by Pulumi's name: a stack may have several clusters.
    """

    type: str
    inputs: Mapping[str, Any]
    name: str = ""
    urn: str = ""
    source: str = ""
    provider: str = ""

    @property
    def is_kubernetes(self) -> bool:
        """Whether it is an object of a cluster."""
        return self.type.startswith("kubernetes:") and self.type.count(":") == 2

    @property
    def kind(self) -> str:
        """The last part of the type; a patch has the kind that it patches."""
        kind = self.type.rsplit(":", 1)[-1]
        return kind.removesuffix("Patch") if self.is_kubernetes else kind

    def metadata(self, key: str) -> Any:
        """A field of a Kubernetes object's metadata, or None; Unknown where it is not known yet."""
        metadata = self.inputs.get("metadata")
        if isinstance(metadata, Unknown):
            return metadata
        return metadata.get(key) if isinstance(metadata, Mapping) else None

    @property
    def identity(self) -> str:
        """What people and exceptions call it: Kind/namespace/name, or Type/name outside Kubernetes."""
        if not self.is_kubernetes:
            return f"{self.kind}/{self.name}"
        namespace, name = self.metadata("namespace"), self.metadata("name")
        return "/".join(
            (
                self.kind,
                namespace if isinstance(namespace, str) else "",
                name if isinstance(name, str) and name else self.name,
            )
        )

    def is_called(self, wanted: str) -> bool:
        """Whether an exception's text means this resource; a namespace not known yet is any."""
        kind, _, rest = wanted.partition("/")
        if kind != self.kind:
            return False
        if not self.is_kubernetes:
            return rest == self.name
        namespace, _, name = rest.rpartition("/")
        given = self.metadata("namespace")
        same = isinstance(given, Unknown) or (given or "default") == (namespace or "default")
        return same and name in (self.metadata("name") or self.name, self.name)


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

    @property
    def subject(self) -> str:
        """Container and field, for people."""
        return f'container "{self.container}": {self.path}' if self.container else self.path

    def text(self) -> str:
        """Return the message for people."""
        return f"{self.subject} {self.found}" + (f". Fix: {self.fix}" if self.fix else "")


def unreadable(part: Misshapen | tuple[str, Unknown]) -> Finding:
    """Return the finding for a part of a resource that a rule cannot look into."""
    if isinstance(part, Misshapen):
        return Finding(part.path, f"is not {part.expected}", f"write {part.expected} there")
    return not_yet_known(part[0])


def not_yet_known(path: str, container: str = "") -> Finding:
    """Return the finding for a value that only `up` will know."""
    return Finding(path, "is not yet known", container=container, known=False)


@dataclass(frozen=True)
class Validation:
    """What must be true of an object for the API server to take it.

    Args:
        expression: in CEL, true when the object is in order; `podSpec`, `containers`, `template` and what
        the rule
            adds are at hand as `variables.…`.
        message: what the API server says otherwise.
    """

    expression: str
    message: str


@dataclass(frozen=True)
class Admission:
    """A rule as the cluster's API server enforces it (ValidatingAdmissionPolicy).

    Args:
        kinds: kinds of objects, such as `Service`; `pods` stands for all that hold pods.
        validations: what must be true.
        variables: named parts of the expressions, in order; each may use those before it.
    """

    kinds: tuple[str, ...]
    validations: Sequence[Validation]
    variables: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class _Base(Generic[S]):
    """What every rule has.

    Args:
        id: its stable name, which settings and reports use.
        description: one sentence, the first line of each report.
        settings: the class of its settings.
        severity: how bad a violation is.
    """

    id: str
    description: str
    settings: type[S]
    severity: Severity


@dataclass(frozen=True)
class Rule(_Base[S]):
    """A rule that looks at one resource.

    Args:
        check: what it finds in a resource under given settings; nothing when the resource is in order. Its
            docstring is the rule's page in the documentation.
        applies: whether the rule has anything to say about a type; saves work, decides nothing. remediate:
        what to set so that the inputs are in order, where that is safe to do. admission: the same rule for
        the API server; None when CEL cannot decide it, then `outside` says why and
            what covers it.
        outside: why the API server does not enforce it.
    """

    check: Callable[[Resource, S], Iterable[Finding]]
    applies: Callable[[str], bool] = lambda _: True
    remediate: Callable[[Resource, S], Iterable[Edit]] | None = None
    admission: Callable[[S], Admission] | None = None
    outside: str = ""

    def __post_init__(self) -> None:
        if (self.admission is None) == (not self.outside):
            raise ValueError(f"rule {self.id}: needs exactly one of admission and outside")


@dataclass(frozen=True)
class StackRule(_Base[S]):
    """A rule that looks at all resources of a stack together.

    Args:
        check: as a Rule's, with the resource of each finding.
        outside: why the API server does not enforce it.
    """

    check: Callable[[Sequence[Resource], S], Iterable[tuple[Resource, Finding]]]
    outside: str


AnyRule: TypeAlias = Rule[Any] | StackRule[Any]


def is_kubernetes(resource_type: str) -> bool:
    """Whether a type is a Kubernetes object's."""
    return resource_type.startswith("kubernetes:")
