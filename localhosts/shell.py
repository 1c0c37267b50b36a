"""Commands, checks and progress lines that the other modules share."""

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

_STARTED = time.monotonic()
_HEARTBEAT_SECONDS = 15.0

# Every program that is called, and the Debian package that holds it.
_PACKAGES = {
    "cp": "coreutils",
    "debootstrap": "debootstrap",
    "ip": "iproute2",
    "journalctl": "systemd",
    "setpriv": "util-linux",
    "ssh": "openssh-client",
    "ssh-keygen": "openssh-client",
    "systemd-nspawn": "systemd-container",
    "unshare": "util-linux",
}


class LocalHostsError(Exception):
    """What is wrong, where, and what to do about it; the command prints it and ends with exit code 1."""


def say(text: str) -> None:
    """Print one progress line with the seconds since the command started."""
    print(f"[{time.monotonic() - _STARTED:6.1f} s] {text}", flush=True)


@contextmanager
def step(text: str) -> Iterator[None]:
    """Announce a step, print a heartbeat while it lasts, and its duration when it is done."""
    say(f"{text} …")
    started = time.monotonic()
    done = threading.Event()

    def beat() -> None:
        while not done.wait(_HEARTBEAT_SECONDS):
            say(f"{text}: still at it after {time.monotonic() - started:.0f} s")

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
    say(f"{text}: done in {time.monotonic() - started:.1f} s")


def run(command: Sequence[str], *, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run a command to its end and return it with its output.

    Raises:
        LocalHostsError: it failed and `check` is set; the message holds the command and its last lines.
    """
    nothing = subprocess.DEVNULL
    done = subprocess.run(list(command), capture_output=True, text=True, stdin=nothing, check=False)
    if check and done.returncode != 0:
        last = "\n".join((done.stderr or done.stdout).strip().splitlines()[-8:])
        raise LocalHostsError(f"`{' '.join(command)}` ended with exit code {done.returncode}:\n{last}")
    return done


def dying_with_us(command: Sequence[str]) -> list[str]:
    """The command, arranged so that the kernel kills it when this process is killed."""
    return ["setpriv", "--pdeathsig", "KILL", *command]


def require_machine() -> None:
    """Check that this is Linux, that we are root, and that every program is there.

    Raises:
        LocalHostsError: naming what is missing and how to get it.
    """
    if not sys.platform.startswith("linux"):
        raise LocalHostsError(
            f"local hosts need Linux, this is {sys.platform}: point a stack at real hosts (see README)"
        )
    if os.geteuid() != 0:
        raise LocalHostsError("local hosts need root (network namespaces, mounts): run the command with sudo")
    # Debian leaves the sbin folders out of an ordinary user's PATH, and sudo may keep that PATH.
    os.environ["PATH"] = os.environ.get("PATH", "") + ":/usr/local/sbin:/usr/sbin:/sbin"
    missing = sorted({package for tool, package in _PACKAGES.items() if shutil.which(tool) is None})
    if missing:
        packages = " ".join(missing)
        raise LocalHostsError(f"missing Debian packages; run: apt-get install --yes {packages}")


def kill(pid: int) -> None:
    """End a process at once; one that is gone already is fine."""
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return
