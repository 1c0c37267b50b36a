"""An SSH connection of pulumi-command's as OpenSSH's client takes it, the host keys pinned as there."""

from __future__ import annotations

from typing import Any

import pulumi
from pulumi_command import remote

AGENT = "AGENT"
"""Environment variable with the socket of the operator's own SSH agent."""
CLIENT_SHELL = f"{AGENT}=$SSH_AUTH_SOCK ssh-agent sh"
"""Runs a script with client.sh; keys go by standard input to an agent that ends with it, never to a file."""
_Place = remote.ConnectionArgs | remote.ProxyConnectionArgs
# None but the pinned keys, and an end within a minute when the line is cut.
_OPTIONS = """StrictHostKeyChecking yes
GlobalKnownHostsFile /dev/null
IdentityFile none
BatchMode yes
LogLevel ERROR
ConnectTimeout 10
ConnectionAttempts 3
ServerAliveInterval 10
ServerAliveCountMax 3
"""
# One login for all that a step does; what is left of it ends by itself.
_SHARED = "ControlMaster auto\nControlPersist 60\n"


def client_values(connection: remote.ConnectionArgs) -> dict[str, pulumi.Input[str]]:
    """The connection as values of a script.

    Args:
        connection: to a host, by its bastion where it has a proxy; with private keys or an agent's.

    Returns:
        SSH_CONFIG and KNOWN_HOSTS, which call the host `host` and its bastion `proxy`; PRIVATE_KEY and
        PROXY_KEY, for an agent of the script's own; empty: the operator's agent has the key.
    """
    places: dict[str, _Place] = {"host": connection}
    keys = {"PRIVATE_KEY": connection.private_key, "PROXY_KEY": None}
    if isinstance(connection.proxy, remote.ProxyConnectionArgs):
        places["proxy"] = connection.proxy
        keys["PROXY_KEY"] = connection.proxy.private_key
    known = pulumi.Output.all(**{alias: _place(place) for alias, place in places.items()})
    return {
        "SSH_CONFIG": known.apply(_config),
        "KNOWN_HOSTS": known.apply(lambda found: "".join(f"{a} {found[a]['hostKey']}\n" for a in found)),
        **{name: "" if key is None else key for name, key in keys.items()},
    }


def _place(place: _Place) -> dict[str, Any]:
    own_agent = place.private_key is not None
    return {
        "HostName": place.host,
        "Port": place.port,
        "User": place.user,
        "IdentityAgent": None if own_agent else place.agent_socket_path or f"${AGENT}",
        "hostKey": place.host_key,
    }


def _config(places: dict[str, dict[str, Any]]) -> str:
    text = _OPTIONS
    for alias, place in places.items():
        text += f"Host {alias}\nHostKeyAlias {alias}\n"
        text += "".join(f"{key} {place[key]}\n" for key in place if key != "hostKey" and place[key])
    if "proxy" in places:
        text += "Host host\nProxyJump proxy\n"
    return f"{text}Host host\n{_SHARED}"
