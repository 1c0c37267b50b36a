"""One piece of work on a host: a script file and its values, run over SSH by pulumi-command."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import pulumi
from pulumi_command import remote

_SCRIPTS = Path(__file__).parent / "scripts"
_PARTS = {
    "preflight.sh": ("versions.sh",),
    "k3s.sh": (
        "record.sh",
        "versions.sh",
        "upgrade.sh",
        "restore.sh",
        "hardened.sh",
        "encryption.sh",
        "rotate.sh",
    ),
    **dict.fromkeys(
        ("artifacts.sh", "wasmedge.sh", "node.sh", "model.sh", "backup.sh", "gpu-cdi.sh", "drift.sh"),
        ("record.sh",),
    ),
    **dict.fromkeys(("stage.sh", "look.sh"), ("client.sh",)),
}
"""Files with functions that a script uses, besides lib.sh."""


@dataclass(frozen=True)
class Target:
    """Where a step runs.

    Args:
        name: the host's name in messages.
        connection: how to reach it; the host key is always pinned.
        user: the SSH user; anything but root runs the step by `sudo -n`.
        gone: the host no longer exists, so its steps are dropped from the state and never run at deletion.
        rebuilt: another text runs all steps again, on a host that was set up anew.
        repairs: per host and step, how often the step was found drifted (see HostState); None: not looked at.
    """

    name: str
    connection: remote.ConnectionArgs
    user: str
    gone: bool
    rebuilt: str = ""
    repairs: pulumi.Output[Mapping[str, Any]] | None = None

    @property
    def identity(self) -> dict[str, str]:
        """What each step of the host has among its values."""
        return {"HOST": self.name, **({"REBUILT": self.rebuilt} if self.rebuilt else {})}

    def text(self, script: str, step: str, values: Mapping[str, pulumi.Input[str]]) -> pulumi.Output[str]:
        """What a step reads on its standard input; another one each time that the step was found drifted.

        Args:
            script: file name in components/scripts.
            step: the step's name.
            values: shell variables of the script.
        """
        repairs: pulumi.Input[Mapping[str, Any]] = {} if self.repairs is None else self.repairs

        def text(known: dict[str, Any]) -> str:
            count = known.pop("REPAIRS").get(self.name, {}).get(step, 0)
            return step_input(script, {**known, **({"REPAIRS": str(int(count))} if count else {})})

        return pulumi.Output.all(**{**self.identity, "STEP": step, **values, "REPAIRS": repairs}).apply(text)

    @property
    def shell(self) -> str:
        """What runs a script as root on the host."""
        return "sh" if self.user == "root" else "sudo -n sh"


def _sudo_works(target: Target) -> str:
    """Says what to do when the user who is not root gets no further."""
    if target.user == "root":
        return ""
    message = (
        f"error: host {target.name}: user {target.user} may not run commands by sudo without a password: "
        f"allow it (sudoers: {target.user} ALL=(root) NOPASSWD: ALL), or log in as root"
    )
    return f"sudo -n true </dev/null || {{ echo {shlex.quote(message)} >&2; exit 1; }}; "


def script_files(script: str) -> list[Path]:
    """What a step's shell text is made of, in this order."""
    return [_SCRIPTS / file for file in ("lib.sh", *_PARTS.get(script, ()), script)]


def steps() -> list[str]:
    """The scripts that are steps by themselves."""
    parts = {"lib.sh", *(part for group in _PARTS.values() for part in group)}
    return sorted(file.name for file in _SCRIPTS.glob("*.sh") if file.name not in parts)


@cache
def script_text(script: str) -> str:
    """The step's shell text: its files without comments, so that editing one reruns nothing."""
    text = "".join(file.read_text() for file in script_files(script))
    lines = (line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#"))
    return "\n".join(lines) + "\n"


def step_input(script: str, values: Mapping[str, str]) -> str:
    """What a step reads on its standard input: its values, then its text."""
    return "".join(f"{key}={shlex.quote(value)}\n" for key, value in values.items()) + script_text(script)


def step_command(script: str, action: str, shell: str = "sh") -> str:
    """The command line of a step; the script's name is what a process list shows of it."""
    return f"{shell} -c 'eval \"$(cat)\"' {script} {action}"


class HostStep(remote.Command):
    """Runs a script of components/scripts on a host: `apply` at create and update, `remove` at delete.

    The script and its values are the step's whole identity: it runs again only when one of them, or the
    connection, changes. Scripts are idempotent, so a changed connection checks the host and changes nothing
    on it.

    Args:
        name: the resource's name.
        script: file name in components/scripts.
        target: the host.
        values: shell variables of the script; a secret value makes the whole input a secret in the state.
        parent: the component the step belongs to.
        depends_on: what must be done first where no value says so.
        secret: what the step prints is a secret; it is neither logged nor shown.
        read_only: the step leaves nothing of its own behind, so nothing runs at deletion.
        once: another step brings changed values to the host: here, nothing runs at an update.
        step: the step by whose name the host remembers it; None: this one.
        opts: further options of the resource.
    """

    def __init__(
        self,
        name: str,
        script: str,
        target: Target,
        values: Mapping[str, pulumi.Input[str]],
        *,
        parent: pulumi.Resource | None = None,
        depends_on: Sequence[pulumi.Resource] = (),
        secret: bool = False,
        read_only: bool = False,
        once: bool = False,
        step: str | None = None,
        opts: pulumi.ResourceOptions | None = None,
    ) -> None:
        own = pulumi.ResourceOptions(
            parent=parent,
            depends_on=list(depends_on),
            additional_secret_outputs=["stdout", "stderr"] if secret else None,
            retain_on_delete=target.gone,
            custom_timeouts=pulumi.CustomTimeouts(create="15m", update="15m", delete="5m"),
        )
        apply = _sudo_works(target) + step_command(script, "apply", target.shell)
        super().__init__(
            name,
            connection=target.connection,
            create=apply,
            # Without an update command `create` runs; one that leaves its input unread can fail for it.
            update="cat >/dev/null" if once else apply,
            delete=None if read_only else step_command(script, "remove", target.shell),
            stdin=(replace(target, repairs=None) if once else target).text(script, step or name, values),
            add_previous_output_in_env=False,
            logging=remote.Logging.NONE if secret else remote.Logging.STDERR,
            opts=pulumi.ResourceOptions.merge(own, opts),
        )
