"""What the Kubernetes provider leaves of the admin's kubeconfig on the operator's machine is taken away."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pulumi


def remove_copies(kubeconfig: pulumi.Output[str], used: pulumi.Resource) -> None:
    """Removes the files in which a Kubernetes provider keeps its kubeconfig for Helm, unused here.

    At every start the provider writes one to the folder for temporary files (`writeKubeconfigToFile` in
    pulumi-kubernetes 4.25, mode 0600) and never removes it. Those of a destroy or refresh, which run no
    program, go at the next preview or update of the same cluster.

    Args:
        kubeconfig: the provider's.
        used: any object that was made by the provider, which then has written its file.
    """
    pulumi.Output.all(kubeconfig, used.urn).apply(lambda known: _remove(known[0]))


def _remove(kubeconfig: str) -> None:
    key = re.search(r"client-key-data: (\S+)", kubeconfig)
    folder = Path(os.environ.get("TMPDIR") or "/tmp")  # noqa: S108 (as Go's os.TempDir has it)
    for file in folder.glob("kubeconfig*") if key else []:
        try:
            if key and key[1].encode() in file.read_bytes():
                file.unlink()
        except OSError:
            continue  # another's, or gone by now
