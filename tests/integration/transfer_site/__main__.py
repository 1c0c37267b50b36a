"""Hosts that get artifacts and nothing else.

Config: `transfer:hosts`, a list of {name, address, port, user, hostKeyFile}, one with `bastion`, another's
name, is reached through that; `transfer:privateKeyFile`; `transfer:artifacts`, name to {source, sha256}.
"""

from pathlib import Path

import pulumi

import components as edge

config = pulumi.Config("transfer")
wanted = {host["name"]: host for host in config.require_object("hosts")}
key = pulumi.Output.secret(Path(config.require("privateKeyFile")).read_text())
artifacts = [
    edge.Artifact(name, edge.ArtifactArgs(name, entry["source"], entry["sha256"]))
    for name, entry in config.require_object("artifacts").items()
]


def host_key(name: str) -> str:
    """The pinned line."""
    return Path(wanted[name]["hostKeyFile"]).read_text().strip()


hosts = {}
for name, host in wanted.items():
    proxy = None
    if "bastion" in host:
        first = wanted[host["bastion"]]
        proxy = edge.Bastion(first["address"], host_key(first["name"]), first["user"], first["port"], key)
    args = edge.EdgeHostArgs(
        host["address"],
        host_key(name),
        "agent",
        user=host["user"],
        port=host["port"],
        private_key=key,
        proxy=proxy,
    )
    hosts[edge.EdgeHost(name, args)] = artifacts
edge.prepare("site", hosts)
