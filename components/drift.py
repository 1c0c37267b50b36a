"""HostState: what became of hosts since their steps ran; a refresh looks, the next `up` repairs."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import pulumi
from pulumi import dynamic

from components.ssh import CLIENT_SHELL, client_values
from components.step import Target, step_command, step_input

AT_ONCE = 32
"""How many hosts are looked at at a time."""
TIMEOUT_S = 180
"""How long one host may take: three tries to connect, and sums of its artifacts on a slow disk."""


class Unread(Exception):
    """A host could not be looked at; the message says why."""


@dataclass
class Look:
    """What was seen on one host.

    Args:
        steps: those that wrote down what they left.
        drift: per step, what is not as it left it.
        notes: what could not be compared.
    """

    steps: list[str] = field(default_factory=list)
    drift: dict[str, list[str]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def parse(printed: str) -> Look:
    """Reads what drift.sh printed."""
    look = Look()
    for line in printed.splitlines():
        step, _, difference = line.partition("\t")
        if not step:
            look.notes.append(difference)
        elif difference:
            look.drift.setdefault(step, []).append(difference)
        else:
            look.steps.append(step)
    return look


def look_at(name: str, host: Mapping[str, str]) -> Look:
    """Asks one host over SSH.

    Args:
        name: the host's.
        host: its entry in HostState's `hosts`.

    Raises:
        Unread: no connection, or no answer.
    """
    values = {"HOST": name, "ON_HOST": step_input("drift.sh", {"HOST": name}), **host}
    command = ["timeout", str(TIMEOUT_S), "sh", "-c", step_command("look.sh", "read", CLIENT_SHELL)]
    done = subprocess.run(
        command, input=step_input("look.sh", values), capture_output=True, text=True, check=False
    )
    if done.returncode == 0:
        return parse(done.stdout)
    said = [line for line in done.stderr.splitlines() if not line.startswith("error: ")]
    raise Unread(said[-1] if said else f"no answer within {TIMEOUT_S} s")


def compare(before: Mapping[str, Any], look: Look) -> tuple[dict[str, list[str]], dict[str, int]]:
    """What drifted on a host, and how often each step did.

    A step counts once for a drift, however often it is looked at, and not for one that went away by itself.

    Args:
        before: the host's `steps`, `drift` and `repairs` at the last look.
        look: what was seen now.
    """
    drift = dict(look.drift)
    if before["steps"] and not look.steps:
        lost = "what it left on the host is gone, and its record: was the host set up anew?"
        drift = {step: [lost] for step in before["steps"]}
    repairs = {step: int(count) for step, count in before["repairs"].items()}
    for step in drift.keys() - before["drift"].keys():
        repairs[step] = repairs.get(step, 0) + 1
    for step in before["drift"].keys() - drift.keys():
        repairs[step] = repairs.get(step, 0) - 1
    return drift, {step: count for step, count in sorted(repairs.items()) if count > 0}


class HostStateProvider(dynamic.ResourceProvider):
    """Runs in the engine's own process for dynamic providers, which imports this module from the project."""

    # Nothing secret is in its pickled form, which is but this class's name.
    serialize_as_secret_always = False

    def create(self, props: dict[str, Any]) -> dynamic.CreateResult:
        """Looks at nothing: the steps come only now."""
        return dynamic.CreateResult("hosts", {**props, "steps": {}, "drift": {}})

    def diff(self, _id: str, olds: dict[str, Any], news: dict[str, Any]) -> dynamic.DiffResult:
        """A drift is over with the next `up`, which repairs it; until then each preview says what it is."""
        _tell(olds["drift"])
        return dynamic.DiffResult(changes=bool(olds["drift"]) or olds["hosts"] != news["hosts"])

    def update(self, _id: str, olds: dict[str, Any], news: dict[str, Any]) -> dynamic.UpdateResult:
        """Forgets the drift; the steps' own inputs have its repair."""
        return dynamic.UpdateResult({**news, "steps": olds["steps"], "drift": {}})

    def read(self, id_: str, props: dict[str, Any]) -> dynamic.ReadResult:
        """Looks at all hosts; one that does not answer stays as it was, with a warning."""
        hosts: dict[str, dict[str, str]] = props["hosts"]
        found: dict[str, dict[str, Any]] = {"steps": {}, "drift": {}, "repairs": {}}
        with ThreadPoolExecutor(AT_ONCE) as pool:
            looks = {name: pool.submit(look_at, name, host) for name, host in hosts.items()}
        for name, answer in sorted(looks.items()):
            before = {key: props[key].get(name, {}) for key in found}
            before["steps"] = before["steps"] or []
            try:
                look = answer.result()
            except Unread as reason:
                _say(f"warning: host {name} could not be looked at, it is taken to be as it was: {reason}")
                now = before
            else:
                drift, repairs = compare(before, look)
                now = {"steps": look.steps or before["steps"], "drift": drift, "repairs": repairs}
                for note in look.notes:
                    _say(f"warning: host {name}: {note}")
            for key, value in now.items():
                if value:
                    found[key][name] = value
        _tell(found["drift"])
        inputs = {"hosts": hosts, "repairs": found["repairs"]}
        return dynamic.ReadResult(id_, {"hosts": hosts, **found}, inputs)


_said: set[str] = set()


def _say(line: str) -> None:
    """The engine shows what a provider prints; a preview that refreshes has two occasions to say the same."""
    if line not in _said:
        _said.add(line)
        print(line, file=sys.stderr, flush=True)


def _tell(drift: Mapping[str, Mapping[str, Sequence[str]]]) -> None:
    for host, steps in sorted(drift.items()):
        for step, differences in sorted(steps.items()):
            for difference in differences:
                _say(f"drift: host {host}: {difference} (step {step})")


class HostState(dynamic.Resource, module="edge", name="HostState"):
    """The hosts of a site as a refresh finds them.

    Each step writes down on its host what it leaves there: files with their sums, modes and owners, links,
    units, labels of nodes. A refresh compares; a step that has drifted then has another input, so that the
    next `up` runs it again, and only it.

    Args:
        name: the resource's name.
        targets: the hosts; those that are gone are not looked at.

    Outputs:
        drift: per host and step, what is not as the step left it; empty again after `up`.
        repairs: per host and step, how often it has drifted.
        steps: per host, the steps that wrote something down, as of the last refresh.
    """

    drift: pulumi.Output[dict[str, dict[str, list[str]]]]
    repairs: pulumi.Output[Mapping[str, Any]]
    steps: pulumi.Output[dict[str, list[str]]]

    def __init__(self, name: str, targets: Sequence[Target]) -> None:
        hosts = {
            target.name: {"ROOT_SHELL": target.shell, **client_values(target.connection)}
            for target in targets
            if not target.gone
        }
        props: dict[str, Any] = {"hosts": hosts, "repairs": {}, "drift": None, "steps": None}
        # A refresh writes the input `repairs`, so that it is known in every preview; the program never does.
        opts = pulumi.ResourceOptions(ignore_changes=["repairs"])
        super().__init__(HostStateProvider(), name, props, opts)
