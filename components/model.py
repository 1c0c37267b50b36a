"""ModelImage: an image kept on a node by digest, from an archive, with no registry."""

from __future__ import annotations

from dataclasses import dataclass

import pulumi

from components.artifact import Artifact
from components.host import EdgeHost
from components.step import host_step


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
        archive: OCI or docker archive that holds the image, staged on the host.
        image: reference by digest.
        after: what must be done first: K3s on that host.
    """

    host: EdgeHost
    name: str
    archive: Artifact
    image: str
    after: tuple[pulumi.Resource, ...] = ()


class ModelImage(pulumi.ComponentResource):
    """The image in the node's containerd, pinned, and in K3s's images folder for the next start.

    Outputs:
        reference: the image by digest, known once containerd has it.
    """

    reference: pulumi.Output[str]

    def __init__(self, name: str, args: ModelImageArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("edge:model:ModelImage", name, None, opts)
        cached = host_step(
            f"{name}-cached",
            "model.sh",
            args.host.target,
            {"NAME": args.name, "ARCHIVE": args.archive.path, "REFERENCE": digest_reference(args.image)},
            parent=self,
            depends_on=args.after,
        )
        self.reference = cached.stdout
        self.register_outputs({"reference": self.reference})
