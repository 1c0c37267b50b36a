"""What the policy tests share: a registry on loopback, the images in it, and the engine."""

import socket
import subprocess
import time
from collections.abc import Iterator

import pytest

from tests.policy.world import BUNDLE, Engine, Images, free_port, run, tamper


@pytest.fixture(scope="session")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Run an empty registry on loopback."""
    address = f"127.0.0.1:{free_port()}"
    log = (tmp_path_factory.mktemp("registry") / "log").open("w")
    with subprocess.Popen(
        ["crane", "registry", "serve", "--address", address], stdout=log, stderr=log
    ) as server:
        for _ in range(100):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", int(address.split(":")[1]))) == 0:
                    break
            time.sleep(0.1)
        yield address
        server.terminate()


@pytest.fixture(scope="session")
def images(registry: str, tmp_path_factory: pytest.TempPathFactory) -> Images:
    """Push and sign the images of the tests."""
    made = Images(tmp_path_factory.mktemp("images"), registry)
    made.make_keys("trusted", "other", "expired", "revoked")
    classic = ("signed", "moved", "saved", "tampered")
    pushed = {
        name: made.push(name) for name in (*classic, "unsigned", "other", "expired", "revoked", "bundle")
    }
    pushed["wasm"] = made.push_wasm("wasm")
    for name in (*classic, "wasm"):
        made.sign(pushed[name])
    for name in ("other", "expired", "revoked"):
        made.sign(pushed[name], key=name)
    made.sign(pushed["bundle"], BUNDLE)
    # The signed tag, pointed at other content after the signing.
    run("crane", "copy", f"{registry}/models/unsigned:v1", f"{registry}/models/moved:v1", cwd=made.folder)
    digest = pushed["unsigned"].split("@")[1]
    made.names = {
        "signed": pushed["signed"],
        "offline": made.save(pushed["saved"], "saved"),
        "bundle": pushed["bundle"],
        "offline-bundle": made.save_bundles(pushed["bundle"], "saved-bundle"),
        "wasm": pushed["wasm"],
        "unsigned": pushed["unsigned"],
        "other-key": pushed["other"],
        "expired-key": pushed["expired"],
        "revoked-key": pushed["revoked"],
        "tag-only": pushed["signed"].split("@")[0],
        "latest": pushed["signed"].replace(":v1@", ":latest@"),
        "moved-tag": made.by_digest(f"{registry}/models/moved:v1"),
        "tampered": made.save(pushed["tampered"], "tampered"),
        "registry-down": f"127.0.0.1:1/models/signed@{digest}",
        "foreign-registry": f"docker.io/library/nginx@{digest}",
        "empty": "",
        "malformed": "No Image/ü:v1",
    }
    tamper(made.folder / "tampered")
    return made


@pytest.fixture(scope="session")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Engine:
    """The engine with a state of its own."""
    return Engine(tmp_path_factory.mktemp("engine"))
