"""A script run on a host by OpenSSH's client, as the stack's settings reach it; host keys are pinned."""

from __future__ import annotations

import shlex
import subprocess
import tempfile
from pathlib import Path

from stacks.settings import HostSettings, read_file
from stacks.ssh import LoginSettings
from status.stack import StatusError

_OPTIONS = """BatchMode yes
StrictHostKeyChecking yes
GlobalKnownHostsFile /dev/null
LogLevel ERROR
ConnectTimeout 10
ServerAliveInterval 10
ServerAliveCountMax 3
"""


def run(host: HostSettings, script: str, arguments: list[str], stdin: bytes = b"") -> bytes:
    """What a shell script prints, run as root.

    Args:
        host: the machine, by its bastion where it has one.
        script: POSIX sh; it reads `stdin` where it reads its input.
        arguments: its $1 and so on.
        stdin: its input.

    Raises:
        StatusError: the script failed, the host can't be reached, or its key is another than the pinned one.
        SettingsError: a key file that the settings name can't be read.
    """
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "config"
        config.write_text(_config(host, Path(folder)))
        shell = shlex.join([*(["sudo", "-n"] if host.user != "root" else []), "sh", "-c", script, "sh"])
        command = ["ssh", "-F", str(config), "host", f"{shell} {shlex.join(arguments)}"]
        done = subprocess.run(command, input=stdin, capture_output=True, check=False)
    if done.returncode != 0:
        raise StatusError(f"host {host.name}: {done.stderr.decode(errors='replace').strip()}")
    return done.stdout


def _config(host: HostSettings, folder: Path) -> str:
    places: dict[str, LoginSettings] = {"host": host}
    if host.proxy:
        places["proxy"] = host.proxy
    known = folder / "known_hosts"
    text, keys = f'{_OPTIONS}UserKnownHostsFile "{known}"\n', ""
    for alias, place in places.items():
        keys += f"{alias} {place.host_key or read_file(str(place.host_key_file), 'hostKeyFile').strip()}\n"
        text += f"Host {alias}\nHostKeyAlias {alias}\nHostName {place.address}\n"
        text += f"Port {place.port}\nUser {place.user}\n{_identity(place, folder / alias)}"
    known.write_text(keys)
    return text + ("Host host\nProxyJump proxy\n" if host.proxy else "")


def _identity(place: LoginSettings, key: Path) -> str:
    """Which key logs in; one that is a setting lies in a file of mode 0600 as long as the script runs."""
    if place.private_key_file:
        return f'IdentityFile "{Path(place.private_key_file).expanduser()}"\nIdentitiesOnly yes\n'
    if place.private_key:
        key.touch(mode=0o600)
        key.write_text(place.private_key.rstrip() + "\n")
        return f'IdentityFile "{key}"\nIdentitiesOnly yes\n'
    return f'IdentityAgent "{place.agent_socket}"\n' if place.agent_socket else ""
