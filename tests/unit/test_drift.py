"""What a step writes down, what a look makes of it, and what of it reaches the state."""

from __future__ import annotations

import base64
import os
import pickletools
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from pulumi.dynamic.dynamic import serialize_provider

from components.drift import HostStateProvider, Look, compare, parse
from components.step import script_files

SCRIPTS = script_files("drift.sh")
LOST = "what it left on the host is gone, and its record: was the host set up anew?"


class Host:
    """A folder in which steps write down files."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.file = folder / "config"
        self.link = folder / "shim"
        self.file.write_text("one\n")
        self.file.chmod(0o600)
        self.link.symlink_to("/opt/first")

    def sh(self, text: str, *scripts: Path) -> str:
        parts = "".join(file.read_text() for file in scripts)
        done = subprocess.run(
            ["sh", "-s", "apply"],
            input=f"HOST=h STEP=h-k3s\n{parts.replace('/var/lib/edge-inference', str(self.folder))}\n{text}",
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout

    def record(self) -> None:
        self.sh(f"record {self.file} {self.link} {self.folder}/none", *SCRIPTS[:-1])

    def look(self) -> Look:
        return parse(self.sh("", *SCRIPTS))


@pytest.fixture
def host(tmp_path: Path) -> Host:
    made = Host(tmp_path)
    made.record()
    return made


def test_what_is_as_it_was_left(host: Host) -> None:
    record = host.folder / "drift/h-k3s"
    assert record.stat().st_mode & 0o777 == 0o600
    assert len(record.read_text().splitlines()) == 2, "what was not there is not written down"
    assert host.look() == Look(["h-k3s"])


@pytest.mark.skipif(os.geteuid() != 0, reason="only root changes an owner")
def test_each_difference_is_named(host: Host) -> None:
    def seen() -> list[str]:
        return host.look().drift["h-k3s"]

    host.file.write_text("two\n")
    assert seen() == [f"{host.file} has other content"]
    host.file.chmod(0o644)
    assert seen() == [f"{host.file} has other content, and mode and owner 644 root:root, not 600 root:root"]
    host.file.write_text("one\n")
    assert seen() == [f"{host.file} has mode and owner 644 root:root, not 600 root:root"]
    os.chown(host.file, 1, 0)
    assert seen() == [f"{host.file} has mode and owner 644 daemon:root, not 600 root:root"]
    host.file.unlink()
    host.link.unlink()
    host.link.symlink_to("/opt/other")
    assert seen() == [f"{host.file} is missing", f"{host.link} leads to /opt/other"]
    host.link.unlink()
    assert seen() == [f"{host.file} is missing", f"{host.link} is missing"]
    host.sh("forget", *SCRIPTS[:-1])
    assert host.look() == Look()


def test_a_host_without_records(tmp_path: Path) -> None:
    assert Host(tmp_path).look() == Look()


def before(**changes: Any) -> Mapping[str, Any]:
    return {"steps": ["a", "b"], "drift": {}, "repairs": {}} | changes


@pytest.mark.parametrize(
    ("known", "look", "drift", "repairs"),
    [
        pytest.param(before(), Look(["a", "b"]), {}, {}, id="none"),
        pytest.param(before(), Look(["a"], {"a": ["x"]}), {"a": ["x"]}, {"a": 1}, id="one"),
        pytest.param(
            before(drift={"a": ["x"]}, repairs={"a": 1.0}),
            Look(["a"], {"a": ["x", "y"]}),
            {"a": ["x", "y"]},
            {"a": 1},
            id="looked at twice",
        ),
        pytest.param(
            before(repairs={"a": 1.0}), Look(["a"], {"a": ["x"]}), {"a": ["x"]}, {"a": 2}, id="again"
        ),
        pytest.param(before(repairs={"a": 3.0}), Look(["a"]), {}, {"a": 3}, id="repaired"),
        pytest.param(
            before(drift={"a": ["x"], "b": ["y"]}, repairs={"a": 1.0, "b": 2.0}),
            Look(["a"]),
            {},
            {"b": 1},
            id="mended by hand",
        ),
        pytest.param(before(), Look(), {"a": [LOST], "b": [LOST]}, {"a": 1, "b": 1}, id="another disk"),
        pytest.param(before(steps=[]), Look(), {}, {}, id="nothing there yet"),
    ],
)
def test_how_often_a_step_drifted(
    known: Mapping[str, Any], look: Look, drift: dict[str, list[str]], repairs: dict[str, int]
) -> None:
    assert compare(known, look) == (drift, repairs)


def test_notes_are_of_no_step() -> None:
    assert parse("\tthe API does not answer\na\t\na\tx is missing\na\ty is missing\n") == Look(
        ["a"], {"a": ["x is missing", "y is missing"]}, ["the API does not answer"]
    )


def state(**changes: Any) -> dict[str, Any]:
    return {"hosts": {"h": {}}, "repairs": {}, "steps": {"h": ["a"]}, "drift": {}} | changes


def test_a_drift_is_a_change_until_up_has_run() -> None:
    provider = HostStateProvider()
    drifted = state(drift={"h": {"a": ["x"]}}, repairs={"h": {"a": 1}})
    assert provider.diff("hosts", state(), state()).changes is False
    assert provider.diff("hosts", state(), state(hosts={"h": {}, "i": {}})).changes is True
    assert provider.diff("hosts", drifted, state()).changes is True
    wanted = {"hosts": {"h": {}}, "repairs": drifted["repairs"]}
    assert provider.update("hosts", drifted, wanted).outs == state(repairs=drifted["repairs"])


def test_the_provider_in_the_state_is_a_name_only() -> None:
    """Else each run, or each checkout, would change the resource."""
    code = (
        "from components.drift import HostStateProvider;"
        "from pulumi.dynamic.dynamic import serialize_provider;"
        "print(serialize_provider(HostStateProvider()))"
    )
    texts = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
        for seed in ("1", "2")
    }
    assert texts == {serialize_provider(HostStateProvider())}
    pickled = base64.b64decode(texts.pop())
    named = [arg for _, arg, _ in pickletools.genops(pickled) if isinstance(arg, str)]
    assert named == ["components.drift", "HostStateProvider"]
