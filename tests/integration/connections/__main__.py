"""The hosts of a stack's settings, reached, checked and given their staging folders, and nothing more."""

import pulumi

import components as edge
from stacks.site import load_site

hosts = [edge.EdgeHost(name, args) for name, args in load_site().hosts.items()]
edge.prepare(hosts)
pulumi.export("reached", [host.name for host in hosts])
