"""The Python packages that the project's programs need on the operator's machine, as pinned wheels."""

from __future__ import annotations

import hashlib
import re
import shutil
import sys
import tomllib
from collections.abc import Callable
from importlib.metadata import distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from toolchain.build import run_step
from toolchain.manifest import CACHE, REPO


def wheels(progress: Callable[[str], None]) -> dict[str, Path]:
    """Path in the bundle → file: the wheels and the requirements.txt that pins them.

    Without tests' and the model build's packages. They are fetched once into the cache, by pip.

    Raises:
        BuildError: the package index does not give them.
    """
    text = requirements()
    folder = CACHE / "wheels" / hashlib.sha256(f"{sys.version_info[:2]}{text}".encode()).hexdigest()[:16]
    if not folder.is_dir():
        progress("wheels")
        partial = folder.with_name(f"{folder.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        (partial / "requirements.txt").write_text(text)
        pip = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:"]
        wanted = ["--require-hashes", "-r", str(partial / "requirements.txt"), "-d", str(partial)]
        run_step("bundle: wheels", [*pip, *wanted], "wheels", {"PIP_DISABLE_PIP_VERSION_CHECK": "1"})
        partial.rename(folder)
    return {f"wheels/{file.name}": file for file in sorted(folder.iterdir())}


def requirements() -> str:
    """requirements.lock's lines of what the project's `dependencies` need, directly or not."""
    wanted = _closure(tomllib.loads((REPO / "pyproject.toml").read_text())["project"]["dependencies"])
    locked = (REPO / "requirements.lock").read_text()
    blocks = re.findall(r"^([\w.-]+)(==(?:.*\\\n)*.*\n)", locked, flags=re.MULTILINE)
    return "".join(name + rest for name, rest in blocks if canonicalize_name(name) in wanted)


def _closure(dependencies: list[str]) -> set[str]:
    found: set[str] = set()
    ahead = [Requirement(line) for line in dependencies]
    while ahead:
        requirement = ahead.pop()
        name = canonicalize_name(requirement.name)
        if name in found or (requirement.marker and not requirement.marker.evaluate({"extra": ""})):
            continue
        found.add(name)
        ahead += [Requirement(line) for line in distribution(name).requires or []]
    return found
