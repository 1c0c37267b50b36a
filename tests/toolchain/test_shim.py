"""The shim's own tests, in the build root."""

from __future__ import annotations

import os
import subprocess

import pytest

from toolchain.build import inside
from toolchain.manifest import load

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="building needs root: run the tests with sudo")


def test_what_a_bundle_is_completed_with() -> None:
    command = ["cargo", "test", "--manifest-path=bundle/Cargo.toml", "--locked", "--quiet"]
    result = subprocess.run(
        [*inside(load()[0], "toolchain/wasmedge"), *command], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert "4 passed" in result.stdout
