"""Builds parts in the build root, one after the other, and links what the operator runs."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console

from toolchain.manifest import CACHE, MODE, REPO, STATE, BuildRoot, Part
from toolchain.release import Refused, Unavailable

console = Console(highlight=False)
LOGS = CACHE / "logs"


class BuildError(Exception):
    """A step failed; the message names the step, its log and the remedy."""


@contextmanager
def cache_lock() -> Iterator[None]:
    """Two checkouts share the cache: one builds at a time."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            console.print(f"another build uses {CACHE}; waiting for it …")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def run_step(title: str, command: list[str], log_name: str, env: dict[str, str] | None = None) -> None:
    """Runs one long command with its output in a log, and a line that shows elapsed time and last output.

    Args:
        title: what the user reads.
        command: the program and its arguments.
        log_name: the log's name in the cache's logs folder.
        env: variables added to the environment.

    Raises:
        BuildError: the command failed; the message ends with the log's last lines.
    """
    LOGS.mkdir(parents=True, exist_ok=True)
    log = LOGS / f"{log_name}.log"
    start = time.monotonic()
    console.print(f"{title} …")
    with log.open("wb") as out:
        process = subprocess.Popen(
            command, stdout=out, stderr=subprocess.STDOUT, env=os.environ | (env or {})
        )
        try:
            with console.status("") as status:
                while process.poll() is None:
                    status.update(f"{title}: {time.monotonic() - start:.0f} s  {last_line(log)[:90]}")
                    time.sleep(0.5)
        except BaseException:
            process.terminate()
            process.wait()
            raise
    if process.returncode != 0:
        tail = "\n".join(log.read_text(errors="replace").splitlines()[-15:])
        raise BuildError(f"{title} failed (exit {process.returncode}); the whole log is {log}:\n{tail}")
    console.print(f"{title}: done in {time.monotonic() - start:.0f} s")


def last_line(log: Path) -> str:
    """The last line written to a log so far."""
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - 400))
        lines = file.read().decode(errors="replace").splitlines()
    return lines[-1] if lines else ""


def debian_mirror() -> str:
    """The package mirror this machine's apt uses; parts come from the same place."""
    listed = subprocess.run(
        ["apt-get", "indextargets", "--format", "$(REPO_URI)", "Created-By: Packages"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout.split()
    mirrors = [uri for uri in listed if "security" not in uri]
    if not mirrors:
        raise BuildError("apt lists no package mirror: run `apt-get update`, then try again")
    return mirrors[0].rstrip("/")


def prepare_root(root: BuildRoot) -> None:
    """Makes the build root, or installs what the manifest added to it."""
    stamp = root.folder / ".key"
    if stamp.is_file() and stamp.read_text() == root.key:
        return
    if not (root.folder / "usr/bin/apt-get").exists():
        partial = root.folder.with_suffix(".partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        run_step(
            f"build root: Debian {root.suite}",
            [
                "debootstrap",
                "--variant=minbase",
                "--include=ca-certificates",
                root.suite,
                str(partial),
                debian_mirror(),
            ],
            "debootstrap",
        )
        (partial / "etc/hosts").write_text("127.0.0.1 localhost\n")
        partial.rename(root.folder)
    install = f"apt-get update && apt-get install -y --no-install-recommends {' '.join(root.packages)}"
    run_step("build root: packages", [*inside(root, "."), "sh", "-c", install], "packages")
    stamp.write_text(root.key)


def inside(root: BuildRoot, folder: str) -> list[str]:
    """The command prefix that runs what follows in the build root, in a folder of the repository."""
    return [str(REPO / "toolchain/in-build-root.sh"), str(root.folder), str(CACHE), str(REPO), folder]


def provide(root: BuildRoot, part: Part) -> None:
    """Fetches or builds one part into the cache unless it is there.

    Raises:
        BuildError: the vendor's file is not the pinned one, or EDGE_PARTS forbids the only way that is left.
    """
    if MODE not in ("auto", "vendor", "build"):
        raise BuildError(f"EDGE_PARTS={MODE}: auto, vendor or build")
    if part.found:
        return
    if part.release and MODE != "build":
        try:
            fetch(part)
            return
        except Unavailable as reason:
            if MODE == "vendor":
                raise BuildError(f"{reason}; EDGE_PARTS=auto builds what cannot be fetched") from None
            console.print(f"{part.name}: no vendor's release ({reason}); building it")
        except Refused as reason:
            raise BuildError(str(reason)) from None
    build(root, part)


@contextmanager
def partial_place(part: Part, key: str) -> Iterator[Path]:
    """A folder that becomes the part once all is in it; what is stopped leaves nothing that counts."""
    final = part.place(key)
    partial = final.with_name(f"{key}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    (partial / "bin").mkdir(parents=True)
    yield partial
    partial.rename(final)


def fetch(part: Part) -> None:
    """Fetches the vendor's release of a part.

    Raises:
        Unavailable: a server or file is not there, or not as the manifest says.
        Refused: a file is not the pinned one.
    """
    start = time.monotonic()
    title = f"fetching {part.name} {part.version}"
    console.print(f"{title} …")
    with console.status("") as status, partial_place(part, part.release_key) as folder:
        for release in part.release:
            release.fetch(
                folder, lambda text: status.update(f"{title}: {time.monotonic() - start:.0f} s  {text}")
            )
    console.print(f"{title}: done in {time.monotonic() - start:.0f} s")


def build(root: BuildRoot, part: Part) -> None:
    """Builds one part into the cache."""
    if os.geteuid() != 0:
        raise BuildError(
            "building needs root (chroot and mounts): run it by sudo, or set EDGE_CACHE to a filled cache"
        )
    prepare_root(root)
    with partial_place(part, part.key) as folder:
        run_step(
            f"building {part.name} {part.version}",
            [*inside(root, f"toolchain/{part.name}"), "./build.sh"],
            part.name,
            {"OUT": f"/cache/{folder.relative_to(CACHE)}", "PART_VERSION": part.version},
        )


def link_programs(parts: list[Part]) -> None:
    """Links the operator's programs into .state/bin, which env.sh puts on PATH."""
    folder = STATE / "bin"
    folder.mkdir(parents=True, exist_ok=True)
    for part in parts:
        for program in part.programs if part.found else []:
            link = folder / program
            link.unlink(missing_ok=True)
            link.symlink_to(part.output / "bin" / program)


def install_plugins(parts: list[Part]) -> None:
    """Installs the resource plugins where the Pulumi engine looks for them."""
    home = CACHE / "pulumi-home"
    for part in parts:
        for name, version in part.plugins.items() if part.found and (STATE / "bin/pulumi").exists() else []:
            mark = home / "plugins" / f"resource-{name}-v{version}" / ".part"
            if mark.is_file() and mark.read_text() == part.found:
                continue
            install_plugin(home, name, version, part.output / "bin" / f"pulumi-resource-{name}")
            mark.write_text(str(part.found))
            console.print(f"Pulumi plugin {name} v{version} installed")


def install_plugin(home: Path, name: str, version: str, program: Path) -> None:
    """Puts a resource plugin into a PULUMI_HOME by the pulumi of .state/bin."""
    install = [str(STATE / "bin/pulumi"), "plugin", "install", "resource", name, f"v{version}"]
    subprocess.run(
        [*install, "--reinstall", "--file", program],
        check=True,
        env=os.environ | {"PULUMI_HOME": str(home), "PULUMI_SKIP_UPDATE_CHECK": "true"},
        stdout=subprocess.DEVNULL,
    )
