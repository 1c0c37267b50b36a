"""Networks of the hosts: a bridge in a namespace of its own, a namespace per host, a leg to this machine.

The bridge is not in this machine's namespace, so that its firewall and bridge settings are neither used nor
touched. The hosts' default route ends at this machine, which forwards nothing: they are air-gapped.
"""

import ipaddress
import json

from localhosts.fleet import Fleet, Host
from localhosts.shell import LocalHostsError, run


def leg(fleet: Fleet) -> str:
    """Name of this machine's interface to the fleet."""
    return f"lh-{fleet.prefix}"


def namespace(fleet: Fleet, host: Host | None = None) -> str:
    """Name of a host's network namespace, or the bridge's."""
    return f"lh.{fleet.prefix}.{host.name}" if host else f"lh.{fleet.prefix}"


def check_subnet_free(fleet: Fleet) -> None:
    """Refuse a subnet that this machine already routes elsewhere.

    Raises:
        LocalHostsError: naming the route and the option.
    """
    wanted = ipaddress.ip_network(fleet.subnet)
    for route in json.loads(run(["ip", "-json", "-4", "route"]).stdout or "[]"):
        if route["dst"] == "default" or route.get("dev") == leg(fleet):
            continue
        if ipaddress.ip_network(route["dst"], strict=False).overlaps(wanted):
            raise LocalHostsError(
                f"--subnet {fleet.subnet}: this machine routes {route['dst']} to {route.get('dev')};"
                f" choose another, for example --subnet 10.214.0.0/24"
            )


def bridge_works(fleet: Fleet) -> bool:
    """Whether the bridge and this machine's leg are there with their address."""
    if run(["ip", "-n", namespace(fleet), "link", "show", "br0"], check=False).returncode != 0:
        return False
    return f" {fleet.gateway}/" in run(["ip", "-4", "addr", "show", "dev", leg(fleet)], check=False).stdout


def make_bridge(fleet: Fleet) -> None:
    """Make the bridge's namespace, the bridge, and this machine's leg with the first address."""
    bridge = namespace(fleet)
    run(["ip", "netns", "add", bridge])
    run(["ip", "-n", bridge, "link", "add", "br0", "type", "bridge", "forward_delay", "0"])
    run(["ip", "-n", bridge, "link", "set", "br0", "up"])
    run(["ip", "link", "add", leg(fleet), "type", "veth", "peer", "name", "uplink", "netns", bridge])
    run(["ip", "-n", bridge, "link", "set", "uplink", "master", "br0", "up"])
    run(["ip", "addr", "add", f"{fleet.gateway}/{fleet.prefix_length}", "dev", leg(fleet)])
    run(["ip", "link", "set", leg(fleet), "up"])


def plug_in(fleet: Fleet, host: Host) -> None:
    """Make a host's namespace afresh, with eth0 on the bridge, its address and a default route."""
    space, bridge = namespace(fleet, host), namespace(fleet)
    # The last byte of an address is not enough for a name: a /20 has many hosts with the same one.
    port = f"p{int(ipaddress.ip_address(host.address)):x}"
    _delete_namespace(space)
    run(["ip", "netns", "add", space])
    # The old pair may outlive its namespace for a moment while the kernel takes that apart.
    run(["ip", "-n", bridge, "link", "delete", port], check=False)
    run(["ip", "-n", bridge, "link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", space])
    run(["ip", "-n", bridge, "link", "set", port, "master", "br0", "up"])
    run(["ip", "-n", space, "link", "set", "lo", "up"])
    run(["ip", "-n", space, "addr", "add", f"{host.address}/{fleet.prefix_length}", "dev", "eth0"])
    run(["ip", "-n", space, "link", "set", "eth0", "up"])
    run(["ip", "-n", space, "route", "add", "default", "via", fleet.gateway])


def unplug(fleet: Fleet, host: Host) -> None:
    """Remove a host's namespace and with it its interface."""
    _delete_namespace(namespace(fleet, host))


def remove(fleet: Fleet) -> None:
    """Remove the leg and all the fleet's namespaces, also those of hosts no record knows."""
    run(["ip", "link", "delete", leg(fleet)], check=False)
    for line in run(["ip", "netns", "list"]).stdout.splitlines():
        name = line.split()[0]
        if name == namespace(fleet) or name.startswith(namespace(fleet) + "."):
            _delete_namespace(name)


def _delete_namespace(name: str) -> None:
    run(["ip", "netns", "delete", name], check=False)
