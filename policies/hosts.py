"""Rules about work on hosts: how they are reached, what is run and what is fetched there."""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.version import InvalidVersion, Version
from pydantic import Field, field_validator

from policies.config import Settings
from policies.rules import Finding, Resource, Rule, not_yet_known
from policies.values import Hidden, Unknown

_IN_PULUMI = "It is about how hosts are reached, before there is a cluster."
_LINES = ("create", "update", "delete")
_UNPINNED = re.compile(
    r"StrictHostKeyChecking[= ]\s*(no|off|accept-new)|UserKnownHostsFile[= ]\s*/dev/null", re.I
)
_SECRETS = (
    (re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----"), "a private key"),
    (re.compile(r"\bAKIA[0-9A-Z]{16}\b"), "an AWS access key"),
    (re.compile(r"\bgh[pousr]_[A-Za-z0-9]{36}\b"), "a GitHub token"),
    (re.compile(r"\bK10[0-9a-f]{64}::"), "a K3s join token"),
    # A value, not a variable or a command: TOKEN=$(cat …) and --password "$X" are fine.
    (
        re.compile(
            r"(?:^|[\s;&|])(?:export\s+)?\w*(?:TOKEN|PASSWORD|PASSWD|SECRET|API_?KEY)\w*=[\"']?[^\s\"'$`;]{4,}",
            re.I,
        ),
        "a secret's value in a variable",
    ),
    (
        re.compile(
            r"--?(?:token|password|passwd|secret|api-?key)(?:[= ]\s*)[\"']?(?![\"']?[-$`])[^\s\"'$`;]{4,}",
            re.I,
        ),
        "a secret's value in an option",
    ),
)
_FETCH = re.compile(r"\b(?:curl|wget)\b[^\n;|&]*https?://", re.I)
_PIPED = re.compile(r"\b(?:curl|wget)\b[^\n;&]*\|\s*(?:sudo\s+(?:-\S+\s+)*)?(?:ba|da|z)?sh\b", re.I)
_COMPARED = re.compile(
    r"\bsha(?:256|512)sum\b|\bshasum\s+-a\s*(?:256|512)|\bopenssl\s+dgst\s+-sha|\bcosign\s+verify", re.I
)
_SHA256 = re.compile(r"[0-9a-fA-F]{64}")
_K3S_VERSION = re.compile(r"INSTALL_K3S_VERSION=[\"']?([^\s\"';]+)")


def is_command(resource_type: str) -> bool:
    """Whether a type is one of the Command provider's."""
    return resource_type.startswith("command:")


def check_host_key(resource: Resource, settings: Settings) -> Iterator[Finding]:
    """Every SSH connection of a remote command pins the host's key, the jump host's too.

    Without `hostKey` whoever answers at the address gets the commands and what they carry (pulumi-command
    has it since 1.1). A local command may not switch the check off for ssh (`StrictHostKeyChecking=no`).

    Good:
        ```json
        [{"type": "command:remote:Command", "name": "install",
          "inputs": {"create": "uname -a", "connection": {"host": "192.0.2.11",
            "hostKey": "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIPmOHMyc+IfgFYvZpNm13XBAx2Nexh4ysGHSadaix6TA"}}}]
        ```

    Bad:
        ```json
        [{"type": "command:remote:Command", "name": "install",
          "inputs": {"create": "uname -a", "connection": {"host": "192.0.2.11"}}}]
        ```
    """
    if resource.type.startswith("command:remote:"):
        connection = resource.inputs.get("connection")
        yield from _pinned(connection, "connection")
        if isinstance(connection, Mapping) and connection.get("proxy") is not None:
            yield from _pinned(connection["proxy"], "connection.proxy")
    for name, line in _command_lines(resource):
        if isinstance(line, str) and (match := _UNPINNED.search(line)):
            yield Finding(name, f"says {match[0]}", "pin the host's key in a known_hosts file and name that")


def _pinned(connection: Any, path: str) -> Iterator[Finding]:
    key = connection.get("hostKey") if isinstance(connection, Mapping) else connection
    if isinstance(key, Unknown) and not isinstance(key, Hidden):
        yield not_yet_known(f"{path}.hostKey")
    elif not key:
        fix = "set it to the host's public key line: ssh-keyscan prints it, compare it on the host"
        yield Finding(f"{path}.hostKey", "is missing, so any host is trusted", fix)


def _command_lines(resource: Resource) -> Iterator[tuple[str, Any]]:
    for name in _LINES:
        if (line := resource.inputs.get(name)) is not None:
            yield name, line


def _scripts(resource: Resource) -> Iterator[tuple[str, Any]]:
    """What is run: the command lines, and what they may read from standard input."""
    yield from _command_lines(resource)
    yield "stdin", resource.inputs.get("stdin")


def check_secret(resource: Resource, settings: Settings) -> Iterator[Finding]:
    """No secret stands in a command line, where every user of the host can read it in the process list.

    Looked for are private keys, well-known tokens, values of variables and options that are named like
    secrets, and whatever the same resource holds as its connection's password or in an environment variable
    named like one. Secrets belong into `stdin`, or into a file of mode 0600.

    Good:
        ```json
        [{"type": "command:local:Command", "name": "join",
          "inputs": {"create": "k3s agent --token-file /etc/rancher/k3s/token", "stdin": "…"}}]
        ```

    Bad:
        ```json
        [{"type": "command:local:Command", "name": "join",
          "inputs": {"create": "k3s agent --token 4f1b0a6c2d8e47f9"}}]
        ```
    """
    values = list(_secret_values(resource))
    for name, line in _command_lines(resource):
        if isinstance(line, Hidden):
            yield Finding(name, "is a secret as a whole", "pass the secret by stdin, not in the command line")
        elif isinstance(line, Unknown):
            yield not_yet_known(name)
        elif isinstance(line, str):
            found = next((what for pattern, what in _SECRETS if pattern.search(line)), None)
            if found is None:
                found = next((f"the value of {where}" for where, value in values if value in line), None)
            if found:
                yield Finding(name, f"holds {found}", "pass it by stdin, or in a file of mode 0600")


def _secret_values(resource: Resource) -> Iterator[tuple[str, str]]:
    connection, environment = (resource.inputs.get(key) for key in ("connection", "environment"))
    found = {
        f"connection.{key}": connection.get(key)
        for key in ("password", "privateKey", "privateKeyPassword")
        if isinstance(connection, Mapping)
    }
    if isinstance(environment, Mapping):
        names = re.compile(r"TOKEN|PASSW|SECRET|KEY", re.I)
        found |= {f"environment.{key}": value for key, value in environment.items() if names.search(str(key))}
    for where, value in found.items():
        if isinstance(value, str) and len(value) >= 8:
            yield where, value


def check_artifact(resource: Resource, settings: Settings) -> Iterator[Finding]:
    """What a host gets is compared with a sha256 before it is used.

    An `edge:artifact:Artifact` carries the sum. A command that fetches (curl, wget) compares sums in the same
    command, and never pipes what it fetched into a shell.

    Good:
        ```json
        [{"type": "edge:artifact:Artifact", "name": "k3s", "inputs": {"source": "https://mirror.example.com/k3s",
          "sha256": "5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef"}}]
        ```

    Bad:
        ```json
        [{"type": "command:remote:Command", "name": "install",
          "inputs": {"create": "curl -sfL https://get.example.com | sh -",
            "connection": {"host": "192.0.2.11", "hostKey": "ssh-ed25519 AAAA"}}}]
        ```
    """
    if resource.type == "edge:artifact:Artifact":
        value = resource.inputs.get("sha256")
        if isinstance(value, Unknown):
            yield not_yet_known("sha256")
        elif not isinstance(value, str) or not _SHA256.fullmatch(value):
            found = "is missing" if not value else f"is {value!r}, not 64 hexadecimal digits"
            yield Finding("sha256", found, "write what `sha256sum FILE` prints")
        return
    for name, line in _scripts(resource):
        if not isinstance(line, str):
            continue
        if match := _PIPED.search(line):
            fix = "fetch to a file, compare its sha256sum, then run it"
            yield Finding(name, f"runs what it fetches: {match[0][:80]}", fix)
        elif (match := _FETCH.search(line)) and not _COMPARED.search(line):
            fix = "compare the file: echo '<sha256>  FILE' | sha256sum -c"
            yield Finding(name, f"fetches without comparing a sum: {match[0][:80]}", fix)


class K3sSettings(Settings):
    """Which K3s may be installed."""

    versions: str = Field(
        default=">=1.30,<1.31",
        description="Allowed versions of K3s, as a Python version specifier (PEP 440).",
    )

    @field_validator("versions")
    @classmethod
    def _is_specifier(cls, value: str) -> str:
        try:
            SpecifierSet(value)
        except InvalidSpecifier:
            raise ValueError(f"{value!r} is no version specifier such as '>=1.30,<1.31'") from None
        return value


def check_k3s(resource: Resource, settings: K3sSettings) -> Iterator[Finding]:
    """The K3s that is installed lies in the range of versions that is allowed.

    Looked at are `edge:artifact:Artifact` resources of the artifact `k3s`, and commands that set
    `INSTALL_K3S_VERSION` for upstream's install script.

    Good:
        ```json
        [{"type": "edge:artifact:Artifact", "name": "edge-1-k3s", "inputs": {"artifact": "k3s",
          "source": "k3s", "version": "v1.30.4+k3s1",
          "sha256": "5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef"}}]
        ```

    Bad:
        ```json
        [{"type": "edge:artifact:Artifact", "name": "edge-1-k3s", "inputs": {"artifact": "k3s",
          "source": "k3s", "version": "v1.27.1+k3s1",
          "sha256": "5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef"}}]
        ```
    """
    if resource.type == "edge:artifact:Artifact":
        if resource.inputs.get("artifact") == "k3s":
            yield from _allowed(resource.inputs.get("version"), "version", settings)
        return
    for name, line in _scripts(resource):
        for match in _K3S_VERSION.finditer(line) if isinstance(line, str) else ():
            if "$" not in match[1]:
                yield from _allowed(match[1], name, settings)


def _allowed(value: Any, path: str, settings: K3sSettings) -> Iterator[Finding]:
    if isinstance(value, Unknown):
        yield not_yet_known(path)
        return
    fix = f"take a version within {settings.versions}, or change k3s-version.versions"
    try:
        version = Version(str(value or ""))
    except InvalidVersion:
        found = "is missing" if not value else f"is {value!r}, not a version such as v1.30.4+k3s1"
        yield Finding(path, found, fix)
        return
    if not SpecifierSet(settings.versions).contains(version, prereleases=True):
        yield Finding(path, f"is {value}, outside {settings.versions}", fix)


def _is_command_or_artifact(resource_type: str) -> bool:
    return is_command(resource_type) or resource_type == "edge:artifact:Artifact"


RULES: Sequence[Rule[Any]] = (
    Rule(
        id="pinned-host-key",
        description="Every SSH connection pins the host's key.",
        settings=Settings,
        severity="critical",
        check=check_host_key,
        applies=is_command,
        outside=_IN_PULUMI,
    ),
    Rule(
        id="no-secret-in-command",
        description="No secret stands in a command line.",
        settings=Settings,
        severity="critical",
        check=check_secret,
        applies=is_command,
        outside=_IN_PULUMI,
    ),
    Rule(
        id="artifact-sha256",
        description="What a host gets is compared with a sha256 before it is used.",
        settings=Settings,
        severity="high",
        check=check_artifact,
        applies=_is_command_or_artifact,
        outside=_IN_PULUMI,
    ),
    Rule(
        id="k3s-version",
        description="The K3s that is installed is of an allowed version.",
        settings=K3sSettings,
        severity="medium",
        check=check_k3s,
        applies=_is_command_or_artifact,
        outside=_IN_PULUMI,
    ),
)
