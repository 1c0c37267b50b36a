"""Artifact: a file with a known sha256, staged on a host once and never used unverified."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePosixPath

import pulumi
from pulumi_command import remote

from components.host import EdgeHost
from components.step import host_step


@dataclass(frozen=True)
class ArtifactArgs:
    """What to stage where.

    Args:
        host: the host that gets the file; `prepare` was called for it.
        name: the artifact's name, also its folder on the host.
        source: a local path, copied over SSH, or an https URL, fetched by the host itself.
        sha256: the file's sum in hex; the host compares it before anything may use the file.
        version: of what is in the file, for people and policies; empty: not known.
    """

    host: EdgeHost
    name: str
    source: str
    sha256: str
    version: str = ""


class Artifact(pulumi.ComponentResource):
    """A verified file on a host.

    Outputs:
        path: where it lies on the host; known only once its sum was compared.
    """

    path: pulumi.Output[str]

    def __init__(self, name: str, args: ArtifactArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        # What the policies look at: the component's steps carry these only inside their scripts.
        stated = {
            "artifact": args.name,
            "source": args.source,
            "sha256": args.sha256,
            "version": args.version,
        }
        super().__init__("edge:artifact:Artifact", name, stated, opts)
        self.file_name = PurePosixPath(args.source).name
        path = f"/var/lib/edge-inference/artifacts/{args.name}@{args.sha256[:12]}-{self.file_name}"
        is_url = args.source.startswith("https://")
        before: list[pulumi.Resource] = [args.host.workspace]
        if not is_url:
            copy = remote.CopyToRemote(
                f"{name}-copy",
                connection=args.host.target.connection,
                source=pulumi.FileAsset(args.source),
                remote_path=path,
                opts=pulumi.ResourceOptions(
                    parent=self, depends_on=before, retain_on_delete=args.host.target.gone
                ),
            )
            before = [copy]
        verified = host_step(
            f"{name}-verify",
            "artifact.sh",
            args.host.target,
            {
                "NAME": args.name,
                "FILE": path,
                "SHA256": args.sha256,
                "URL": args.source if is_url else "",
            },
            parent=self,
            depends_on=before,
        )
        self.path = verified.stdout
        self.register_outputs({"path": self.path})
