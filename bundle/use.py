"""A bundle at the site: compared with its manifest and signature, and installed on the operator's machine."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bundle.contents import PLUGIN, BundleError
from bundle.make import MANIFEST
from stacks.manifest import SIGNATURE, FileSum, Manifest, file_problem, verify_manifest
from toolchain.build import install_plugin
from toolchain.manifest import CACHE, REPO, STATE


@dataclass(frozen=True)
class Checked:
    """One file of a bundle.

    Args:
        path: in the bundle.
        size: in bytes, as the manifest has it; None: the manifest does not know it.
        problem: what is wrong and what to do; None: it is what the manifest says.
    """

    path: str
    size: int | None
    problem: str | None


def check(folder: Path, key: Path) -> Iterator[Checked]:
    """Compares every file of a bundle's folder with its signed manifest.

    Args:
        folder: the unpacked bundle.
        key: public key of who makes the bundles; not the one that lies in the bundle.

    Raises:
        SettingsError: the manifest is not what the key's owner signed, or key or signature is missing.
        BundleError: there is no bundle in the folder.
    """
    wanted = _wanted(folder, key)
    for path, entry in sorted(wanted.items()):
        found = file_problem(folder / path, entry.sha256, entry.size)
        yield Checked(path, entry.size, found and f"{found}: carry it again")
    known = {MANIFEST, MANIFEST + SIGNATURE, *wanted}
    for file in sorted(folder.rglob("*")):
        path = str(file.relative_to(folder))
        if path not in known and not (file.is_dir() and not file.is_symlink()):
            yield Checked(path, None, f"{file} is not in the manifest: remove it")


def _wanted(folder: Path, key: Path) -> dict[str, FileSum]:
    file = folder / MANIFEST
    if not file.is_file():
        raise BundleError(f"{folder}: holds no {MANIFEST}: name the folder that the bundle was unpacked into")
    verify_manifest(file, key)
    manifest = Manifest.model_validate_json(file.read_bytes())
    hosts = {
        entry.source: FileSum(sha256=str(entry.sha256), size=entry.size or 0)
        for entry in manifest.artifacts.values()
    }
    return hosts | manifest.files


def install(folder: Path, key: Path) -> list[str]:
    """Puts programs, plugins and the project's files where env.sh and the settings look for them.

    Args:
        folder: the unpacked bundle.
        key: as check().

    Returns:
        One line for each thing that was installed.

    Raises:
        SettingsError, BundleError: as check(), and for a file that is not what the manifest says.
    """
    checked = list(check(folder, key))
    if problems := [each.problem for each in checked if each.problem]:
        raise BundleError("\n".join(problems))
    home = Path(os.environ.get("PULUMI_HOME") or CACHE / "pulumi-home")
    done = []
    # Programs come before plugins, which pulumi itself installs.
    for path in [each.path for each in checked]:
        kind, _, rest = path.partition("/")
        if kind == "bin":
            _copy(folder / path, STATE / "bin" / rest, 0o755)
        elif kind == "project":
            _copy(folder / path, REPO / rest, 0o644)
        elif kind == "plugins":
            version, _, program = rest.partition("/")
            install_plugin(home, program.removeprefix(PLUGIN), version.removeprefix("v"), folder / path)
        else:
            continue
        done.append(path)
    return done


def _copy(source: Path, target: Path, mode: int) -> None:
    """A link of an earlier `make setup` is replaced, and what it points to stays."""
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f"{target.name}.new")
    shutil.copyfile(source, partial)
    partial.chmod(mode)
    partial.replace(target)
