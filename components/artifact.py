"""Artifact: a file with a known sha256; hosts get it once and never use it unverified."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import PurePosixPath

import pulumi
from pulumi_command import local

from components.ssh import CLIENT_SHELL, client_values
from components.step import Target, step_command, step_input

FOLDER = "/var/lib/edge-inference/artifacts"
"""Where artifacts lie on a host."""
_PLAIN = re.compile(r"[A-Za-z0-9._+-]+")


@dataclass(frozen=True)
class ArtifactArgs:
    """A file that hosts install.

    Args:
        name: what it is, as policies know it: "k3s".
        source: a local path, sent over SSH, or an https URL, fetched by each host itself.
        sha256: the file's sum in hex; a host compares it before anything may use the file.
        version: of what is in the file, for people and policies; empty: not known.
    """

    name: str
    source: str
    sha256: str
    version: str = ""


class Artifact(pulumi.ComponentResource):
    """A file for any number of hosts, declared once; `prepare` brings it to them.

    Raises:
        ValueError: its name, or the file's, has other characters than letters, digits and ._+-
    """

    def __init__(self, name: str, args: ArtifactArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        self.args = args
        self.file_name = PurePosixPath(args.source).name
        for text in (args.name, self.file_name):
            if not _PLAIN.fullmatch(text):
                raise ValueError(
                    f"artifact {args.name}: {text!r}: rename it, with letters, digits and ._+- only"
                )
        self.path = f"{FOLDER}/{args.name}@{args.sha256[:12]}-{self.file_name}"
        # What the policies look at: the hosts' steps carry these only inside their scripts.
        stated = {
            "artifact": args.name,
            "source": args.source,
            "sha256": args.sha256,
            "version": args.version,
        }
        super().__init__("edge:artifact:Artifact", name, stated, opts)
        self.register_outputs({})


class StagedArtifacts(local.Command):
    """The artifacts of one host, verified there, in the folder that is the first thing made on it.

    It runs beside the engine, with OpenSSH's client: the host says what it lacks, only that is sent, from the
    byte where an earlier transfer ended, and the host compares the sums. EdgeHost takes the folder away.
    """

    def __init__(
        self, name: str, target: Target, artifacts: Collection[Artifact], opts: pulumi.ResourceOptions
    ) -> None:
        files = "\n".join(
            "\t".join([file.args.name, file.args.sha256, file.path, file.args.source]) for file in artifacts
        )
        values = {
            "FILES": files,
            "ROOT_SHELL": target.shell,
            "ON_HOST": step_input("artifacts.sh", {**target.identity, "STEP": name, "FILES": files}),
            **client_values(target.connection),
        }
        # A model of gigabytes over a slow line; a line that is cut ends it within a minute.
        timeouts = pulumi.CustomTimeouts(create="6h", update="6h")
        super().__init__(
            name,
            create=step_command("stage.sh", "apply", CLIENT_SHELL),
            update=step_command("stage.sh", "apply", CLIENT_SHELL),
            stdin=target.text("stage.sh", name, values),
            add_previous_output_in_env=False,
            logging=local.Logging.STDERR,
            opts=pulumi.ResourceOptions.merge(pulumi.ResourceOptions(custom_timeouts=timeouts), opts),
        )
