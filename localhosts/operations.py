"""What the command does: create, delete, start, stop, reset. Each may be cut short and run again."""

import shutil
from pathlib import Path

from localhosts import base, cgroups, disk, kernel, machine, network
from localhosts.fleet import Fleet, Host, drop_registry_when_empty, forget, load_all, save
from localhosts.shell import LocalHostsError, say


def create(wanted: Fleet, hosts: list[Host]) -> Fleet:
    """Make the hosts that are missing, boot those that are off, and wait until ssh works on all.

    Args:
        wanted: the fleet without hosts.
        hosts: hosts it shall have; those it has already stay.

    Returns:
        The fleet with all its hosts.

    Raises:
        LocalHostsError: the hosts are another checkout's, a name or address is taken, or a step failed.
    """
    known = _ours(wanted)
    fleet = (known or wanted).with_hosts(hosts)
    _check_names_free(fleet)
    network.check_subnet_free(fleet)
    kernel.save_sysctls()
    save(fleet)
    base.ensure(Path(fleet.cache))
    if not network.bridge_works(fleet):
        _clear(fleet)
        network.make_bridge(fleet)
    booted = []
    for host in fleet.hosts:
        if machine.uptime_seconds(fleet, host) is None:
            machine.power_off(fleet, host)
            disk.ensure(fleet, host)
            machine.boot(fleet, host)
            say(f"{host.name}: booting at {host.address}")
            booted.append(host)
        else:
            disk.ensure(fleet, host)
    for host in fleet.hosts:
        machine.await_ssh(fleet, host)
    say(f"{len(fleet.hosts)} hosts up, {len(booted)} of them booted now")
    return fleet


def _ours(wanted: Fleet) -> Fleet | None:
    """The recorded fleet of this prefix; a dead one of another checkout is cleared away.

    Raises:
        LocalHostsError: it is alive and another checkout's, or lies in another subnet.
    """
    known = load_all().get(wanted.prefix)
    if known is None:
        return None
    alive = [host.name for host in known.hosts if machine.uptime_seconds(known, host) is not None]
    foreign = (known.checkout, known.cache) != (wanted.checkout, wanted.cache)
    if foreign and alive and Path(known.checkout).is_dir():
        raise LocalHostsError(
            f"local hosts {', '.join(alive)} are up and belong to the checkout {known.checkout}: delete them "
            f"there (`python -m localhosts delete`), or make others beside them with --prefix and --subnet"
        )
    if foreign:
        say(f"clearing hosts that the checkout {known.checkout} left behind")
        delete(known)
        kernel.save_sysctls()
        return None
    if known.subnet != wanted.subnet:
        raise LocalHostsError(f"--subnet {wanted.subnet}: the hosts are in {known.subnet}; delete them first")
    return known


def _check_names_free(fleet: Fleet) -> None:
    for other in load_all().values():
        for name in {host.name for host in other.hosts} & {host.name for host in fleet.hosts}:
            if other.prefix != fleet.prefix:
                raise LocalHostsError(f"host name {name} is taken by a local host of --prefix {other.prefix}")


def _clear(fleet: Fleet) -> None:
    """Power off all and take the network apart, also what a crash left and no record knows."""
    for name in cgroups.names(fleet.prefix) | {host.name for host in fleet.hosts}:
        machine.power_off(fleet, Host(name, ""))
    network.remove(fleet)


def delete(fleet: Fleet) -> None:
    """Remove the fleet: processes, groups, network, disks, keys; with the last fleet the sysctls go back."""
    names = ", ".join(host.name for host in fleet.hosts)
    say(f"deleting hosts: {names or 'none on record, leftovers only'}")
    _clear(fleet)
    for folder in (fleet.disks, *(Path(fleet.state) / host.name for host in fleet.hosts)):
        if folder.exists():
            shutil.rmtree(folder)
    for key in (fleet.private_key, fleet.private_key.with_suffix(".pub")):
        key.unlink(missing_ok=True)
    for folder in (fleet.disks.parent, Path(fleet.state)):
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()
    for leftover in _nspawn_leftovers(fleet):
        shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()
    forget(fleet)
    kernel.restore_sysctls()
    drop_registry_when_empty()
    say("deleted")


def _nspawn_leftovers(fleet: Fleet) -> list[Path]:
    """What systemd-nspawn leaves in /run when it is killed."""
    base_folder = Path("/run/systemd/nspawn")
    return [found for host in fleet.hosts for found in base_folder.glob(f"*/{host.name}")]


def start(fleet: Fleet, host: Host) -> None:
    """Boot a host that is off from its disk, and wait for ssh."""
    if machine.uptime_seconds(fleet, host) is None:
        disk.ensure(fleet, host)
        machine.boot(fleet, host)
    machine.await_ssh(fleet, host)


def stop(fleet: Fleet, host: Host) -> None:
    """Pull a host's plug; `start` boots it again with its disk."""
    machine.power_off(fleet, host)
    say(f"{host.name}: off")


def reset(fleet: Fleet, hosts: list[Host]) -> None:
    """Give hosts a fresh disk, keep their keys, and boot them."""
    for host in hosts:
        machine.power_off(fleet, host)
        disk.reset(fleet, host)
        machine.boot(fleet, host)
    for host in hosts:
        machine.await_ssh(fleet, host)
