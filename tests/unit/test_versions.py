"""Which K3s may follow which: the shell functions that hosts use (components/scripts/versions.sh)."""

import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "components/scripts/versions.sh"
DOWN = "K3s does not go back to an older version"
STEP = "a server goes up one minor version at a time: name a v1.31 first"
FAR = "an agent may be three minor versions older than its servers at most: name a v1.33 or older first"


def run(call: str, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["sh", "-euc", f'. "$0"; {call} "$@"', str(SCRIPT), *words],
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(
    ("found", "wanted", "role", "says"),
    [
        ("v1.30.0+k3s1", "v1.30.0+k3s1", "server", ""),
        ("v1.30.0+k3s1", "v1.30.0+k3s2", "server", ""),
        ("v1.30.2+k3s1", "v1.30.10+k3s1", "server", ""),
        ("v1.30.4+k3s1", "v1.31.0+k3s1", "server", ""),
        ("v1.31.0-rc2+k3s1", "v1.31.0+k3s1", "server", ""),
        ("v1.30.4+k3s1", "v1.32.0+k3s1", "server", STEP),
        ("v1.30.4+k3s1", "v1.32.0+k3s1", "agent", ""),
        ("v1.30.4+k3s1", "v1.33.0+k3s1", "agent", ""),
        ("v1.30.4+k3s1", "v1.34.0+k3s1", "agent", FAR),
        ("v1.30.10+k3s1", "v1.30.9+k3s1", "server", DOWN),
        ("v1.30.10+k3s2", "v1.30.10+k3s1", "agent", DOWN),
        ("v1.31.0+k3s1", "v1.31.0-rc2+k3s1", "server", DOWN),
        ("v1.31.0+k3s1", "v1.30.14+k3s1", "agent", DOWN),
        ("v1.100.0+k3s1", "v1.99.0+k3s1", "server", DOWN),
    ],
)
def test_what_may_follow(found: str, wanted: str, role: str, says: str) -> None:
    done = run("refusal", found, wanted, role)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(says)
    assert bool(done.stdout) == bool(says)


@pytest.mark.parametrize("name", ["k3s", "k3s.previous"])
def test_the_version_of_a_program_whatever_its_file_is_called(tmp_path: Path, name: str) -> None:
    program = tmp_path / name
    program.write_text(
        '#!/bin/sh\necho "${0##*/} version v1.30.0+k3s1 (14549535)"\necho "go version go1.22.2"\n'
    )
    program.chmod(0o755)
    assert run("version_of", str(program)).stdout == "v1.30.0+k3s1\n"
