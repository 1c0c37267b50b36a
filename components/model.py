"""ModelImage: an image kept on a node by digest, from an archive, with no registry."""

from __future__ import annotations

from dataclasses import dataclass

import pulumi

from components.artifact import Artifact
from components.host import EdgeHost
from components.step import HostStep


def digest_reference(image: str) -> str:
    """`name:tag@sha256:…` or `name@sha256:…` → `name@sha256:…`, as containerd names it."""
    name, _, digest = image.partition("@")
    head, slash, last = name.rpartition("/")
    return f"{head}{slash}{last.partition(':')[0]}@{digest}"


@dataclass(frozen=True)
class ModelImageArgs:
    """An image on one node.

    Args:
        host: the node's machine; K3s must run on it (say so by `opts.depends_on` or `after`).
        name: file name of the archive in K3s's images folder.
        archive: OCI or docker archive that holds the image.
        image: reference by digest.
        after: what must be done first: K3s on that host.
    """

    host: EdgeHost
    name: str
    archive: Artifact
    image: str
    after: tuple[pulumi.Resource, ...] = ()


class ModelImage(HostStep):
    """The image in the node's containerd, pinned, and in K3s's images folder for the next start.

    Outputs:
        reference: the image by digest, known once containerd has it.
    """

    def __init__(self, name: str, args: ModelImageArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        values: dict[str, pulumi.Input[str]] = {
            "NAME": args.name,
            "ARCHIVE": args.host.path(args.archive),
            "REFERENCE": digest_reference(args.image),
        }
        super().__init__(name, "model.sh", args.host.target, values, depends_on=args.after, opts=opts)

    @property
    def reference(self) -> pulumi.Output[str]:
        return self.stdout
