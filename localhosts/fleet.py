"""The fleet: which hosts there are, their addresses and folders, and whose they are."""

import fcntl
import ipaddress
import json
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

from localhosts.shell import LocalHostsError, say

# Machine-wide, because namespaces and addresses are: another checkout's hosts are found here too.
REGISTRY = Path("/run/edge-localhosts")
# Beside the registry, which goes with the last fleet while other commands wait for the lock.
_LOCK = Path("/run/edge-localhosts.lock")
_PREFIX = re.compile(r"[a-z][a-z0-9]{0,10}")
_NAME = re.compile(r"[a-z][a-z0-9-]{0,38}[a-z0-9]")


@dataclass(frozen=True)
class Host:
    """One host.

    Attributes:
        name: its host name, a DNS label.
        address: its IPv4 address in the fleet's subnet.
        memory_mib: its memory in MiB, by cgroup and in /proc/meminfo; 0 is all the machine's.
    """

    name: str
    address: str
    memory_mib: int = 0


@dataclass(frozen=True)
class Fleet:
    """The hosts of one bridge.

    Attributes:
        prefix: name of the fleet; its hosts are PREFIX-1, PREFIX-2 unless named otherwise.
        subnet: IPv4 network of hosts and bridge; the first address is this machine's leg.
        checkout: root folder of the checkout the fleet belongs to.
        cache: cache folder that holds the hosts' disks.
        state: folder for the keys that a Pulumi program needs.
        hosts: the hosts, in the order they were made.
    """

    prefix: str
    subnet: str
    checkout: str
    cache: str
    state: str
    hosts: list[Host] = field(default_factory=list)

    @property
    def gateway(self) -> str:
        """This machine's address on the bridge."""
        return str(ipaddress.ip_network(self.subnet)[1])

    @property
    def prefix_length(self) -> int:
        """Length of the subnet's prefix, in bits."""
        return ipaddress.ip_network(self.subnet).prefixlen

    @property
    def disks(self) -> Path:
        """Folder of the hosts' disks."""
        return Path(self.cache) / "hosts" / self.prefix

    @property
    def runtime(self) -> Path:
        """Folder of process ids, gone after a reboot like the processes."""
        return REGISTRY / self.prefix

    @property
    def private_key(self) -> Path:
        """The operator's private key, mode 0600."""
        return Path(self.state) / "id_ed25519"

    def host_key(self, name: str) -> Path:
        """The public host key of a host, one line as in known_hosts without the name."""
        return Path(self.state) / name / "ssh_host_ed25519_key.pub"

    def host(self, name: str) -> Host:
        """The host of that name.

        Raises:
            LocalHostsError: there is none; the message lists those that are.
        """
        for host in self.hosts:
            if host.name == name:
                return host
        names = ", ".join(host.name for host in self.hosts) or "none"
        raise LocalHostsError(f"no local host is called {name}; there are: {names}. `create` makes them")

    def with_hosts(self, wanted: list[Host]) -> "Fleet":
        """This fleet and the wanted hosts it lacks; a host that exists keeps its memory.

        Raises:
            LocalHostsError: a name or address is not valid or taken by another host.
        """
        hosts = list(self.hosts)
        for host in wanted:
            same = [known for known in hosts if known.name == host.name]
            if same and same[0].address != host.address:
                raise LocalHostsError(
                    f"host {host.name} exists with address {same[0].address}, {host.address} was asked for: "
                    f"delete the hosts first, or choose another name"
                )
            if not same:
                self._check(host, hosts)
                hosts.append(host)
        return Fleet(self.prefix, self.subnet, self.checkout, self.cache, self.state, hosts)

    def _check(self, host: Host, others: list[Host]) -> None:
        if not _NAME.fullmatch(host.name):
            raise LocalHostsError(f"host name {host.name!r}: letters a-z, digits and dashes, at most 40")
        try:
            address = ipaddress.ip_address(host.address)
        except ValueError as error:
            raise LocalHostsError(f"host {host.name}: {error}") from error
        network = ipaddress.ip_network(self.subnet)
        if address not in list(network.hosts())[1:]:
            raise LocalHostsError(
                f"host {host.name}: {host.address} is no free address of {self.subnet}"
                f" ({self.gateway} is this machine's)"
            )
        taken = [other.name for other in others if other.address == host.address]
        if taken:
            raise LocalHostsError(f"host {host.name}: address {host.address} is {taken[0]}'s")


def check_names(prefix: str, subnet: str) -> None:
    """Check a fleet's prefix and subnet.

    Raises:
        LocalHostsError: naming the option and what it may be.
    """
    if not _PREFIX.fullmatch(prefix):
        raise LocalHostsError(f"--prefix {prefix!r}: a letter a-z, then letters or digits, at most 11")
    try:
        network = ipaddress.ip_network(subnet)
    except ValueError as error:
        raise LocalHostsError(f"--subnet: {error}") from error
    if network.version != 4 or not 20 <= network.prefixlen <= 28 or not network.is_private:
        raise LocalHostsError(f"--subnet {subnet}: a private network, /20 to /28, such as 10.214.0.0/24")


@contextmanager
def locked() -> Iterator[None]:
    """Hold the machine-wide lock; a second command waits until the first has ended."""
    with _LOCK.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("another localhosts command is at work on this machine, waiting for it")
            fcntl.flock(lock, fcntl.LOCK_EX)
        REGISTRY.mkdir(mode=0o755, exist_ok=True)
        _forget_last_boot()
        yield


def _forget_last_boot() -> None:
    """Drop records from before a reboot where /run is not emptied by it."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text()
    mark = REGISTRY / "boot_id"
    if mark.exists() and mark.read_text() == boot:
        return
    for entry in REGISTRY.iterdir():
        if entry.is_dir():
            shutil.rmtree(entry)
        else:
            entry.unlink()
    mark.write_text(boot)


def load_all() -> dict[str, Fleet]:
    """All fleets of this machine by prefix, whichever checkout they belong to."""
    fleets = {}
    for file in sorted(REGISTRY.glob("*.fleet")):
        record = json.loads(file.read_text())
        hosts = [Host(**host) for host in record.pop("hosts")]
        fleets[file.stem] = Fleet(hosts=hosts, **record)
    return fleets


def save(fleet: Fleet) -> None:
    """Record the fleet, in one move so that a reader never sees half of it."""
    fresh = REGISTRY / f"{fleet.prefix}.new"
    fresh.write_text(json.dumps(asdict(fleet), indent=1))
    fresh.replace(REGISTRY / f"{fleet.prefix}.fleet")


def forget(fleet: Fleet) -> None:
    """Remove the fleet's record and process ids."""
    (REGISTRY / f"{fleet.prefix}.fleet").unlink(missing_ok=True)
    if fleet.runtime.exists():
        shutil.rmtree(fleet.runtime)


def drop_registry_when_empty() -> None:
    """Remove the registry once no fleet is left."""
    if not load_all():
        shutil.rmtree(REGISTRY)
