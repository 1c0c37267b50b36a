"""The hosts of a stack's settings, each reached, checked and given one artifact, and nothing more."""

import pulumi

import components as edge
from stacks.site import load_sites

(site,) = load_sites()
entry = site.artifacts["amd64"]["k3s-install"]
artifact = edge.Artifact("file", edge.ArtifactArgs("file", entry.source, str(entry.sha256)))
before: list[edge.StagedArtifacts] = []
for name, args in site.hosts.items():
    host = edge.EdgeHost(name, args)
    # One after the other: they are one machine, and have one folder.
    edge.prepare(name, {host: [artifact]}, before)
    before = [host.staged]
pulumi.export("reached", list(site.hosts))
