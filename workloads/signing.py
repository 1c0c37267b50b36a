"""Signs with the project's key pair: an image, kept with its signature as a layout on disk; a file."""

from __future__ import annotations

import hashlib
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from policies.cosign import verify_blob
from policies.trust import Key, Trust
from policies.verification import Question, forget, verify
from toolchain.build import BuildError
from toolchain.manifest import ARTIFACTS, STATE
from workloads.image import write_layout

KEY = STATE / "cosign.key"
PUBLIC_KEY = ARTIFACTS / "cosign.pub"
PASSPHRASE = STATE / "passphrase"


def sign(name: str, digest: str, blobs: dict[str, bytes], layout: Path) -> bool:
    """Signs an image unless its layout already holds a signature that the policy pack accepts.

    The registry that cosign needs is one on loopback, for the moment; nothing goes to a public log.

    Args:
        name: image with tag.
        digest: of its manifest.
        blobs: every blob by its digest.
        layout: folder that `cosign save` writes; replaced only when it is whole.

    Returns:
        Whether it was signed now.

    Raises:
        BuildError: a program or the passphrase is missing, or cosign failed.
    """
    make_key()
    repository = name.rpartition(":")[0]
    question = Question(repository, digest, Trust((Key(PUBLIC_KEY),), (layout,), timeout=30))
    index = layout / "index.json"
    # Without the image in the layout, the pack would ask the registry.
    if index.is_file() and digest in index.read_text() and verify(question) is None:
        return False
    partial = layout.with_name(f"{layout.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    with tempfile.TemporaryDirectory() as folder, _registry(Path(folder)) as address:
        write_layout(digest, blobs, Path(folder) / "image")
        pushed = f"{address}/{repository.partition('/')[2]}@{digest}"
        _run("crane", "push", f"{folder}/image", pushed.partition("@")[0] + ":signing")
        _run(
            "cosign",
            "sign",
            "--yes",
            f"--key={KEY}",
            "--tlog-upload=false",
            "--use-signing-config=false",
            f"--sign-container-identity={repository}",
            pushed,
        )
        _run("cosign", "save", f"--dir={partial}", pushed)
    shutil.rmtree(layout, ignore_errors=True)
    partial.rename(layout)
    forget()
    if problem := verify(question):
        raise BuildError(f"{name}@{digest} was signed, {problem.found}: {problem.fix}")
    return True


def sign_file(file: Path) -> bytes:
    """A file's signature by the project's key, as a Sigstore bundle; nothing goes to a public log.

    It is made once for the same bytes and kept in .state: another one would differ, as ECDSA is randomised.

    Raises:
        BuildError: a program or the passphrase is missing, or cosign failed.
    """
    make_key()
    kept = STATE / "signatures" / f"{hashlib.sha256(file.read_bytes()).hexdigest()}.json"
    if not kept.is_file() or verify_blob(file, kept, PUBLIC_KEY, 30).verdict != "good":
        kept.parent.mkdir(exist_ok=True)
        flags = ["--tlog-upload=false", "--use-signing-config=false", "--new-bundle-format"]
        _run("cosign", "sign-blob", "--yes", f"--key={KEY}", *flags, f"--bundle={kept}", str(file))
    return kept.read_bytes()


def make_key() -> None:
    """Makes the key pair once, and puts the public key where the policy pack looks for it.

    Raises:
        BuildError: there is no passphrase, or no cosign.
    """
    programs = str(STATE / "bin")
    if programs not in os.environ["PATH"].split(":"):
        os.environ["PATH"] = f"{programs}:{os.environ['PATH']}"  # as env.sh sets it
    for program in ("cosign", "crane"):
        if shutil.which(program) is None:
            raise BuildError(f"{program} is missing: run `make setup`")
    if not PASSPHRASE.is_file():
        raise BuildError(
            f"{PASSPHRASE} is missing, so no key can be used: run `. ./env.sh` in the repository"
        )
    if not KEY.is_file():
        _run("cosign", "generate-key-pair", f"--output-key-prefix={KEY.with_suffix('')}")
        KEY.chmod(0o600)
    public = _run("cosign", "public-key", f"--key={KEY}")
    if not PUBLIC_KEY.is_file() or PUBLIC_KEY.read_text() != public:
        PUBLIC_KEY.write_text(public)
        forget()


def _run(*command: str) -> str:
    """Output of a program that gets the key's passphrase by its environment."""
    environment = os.environ | {"COSIGN_PASSWORD": PASSPHRASE.read_text().strip()}
    result = subprocess.run(
        command, env=environment, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False
    )
    if result.returncode != 0:
        hint = ""
        if "decrypt" in result.stderr:
            hint = f"; {KEY} has another passphrase than {PASSPHRASE}: restore it, or remove the key"
        raise BuildError(f"{' '.join(command[:2])} failed: {result.stderr.strip()[-400:]}{hint}")
    return result.stdout


@contextmanager
def _registry(folder: Path) -> Iterator[str]:
    """The address of an empty registry on loopback."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    address = f"127.0.0.1:{port}"
    with (
        (folder / "log").open("w") as log,
        subprocess.Popen(
            ["crane", "registry", "serve", "--address", address], stdout=log, stderr=log
        ) as process,
    ):
        try:
            for _ in range(200):
                with socket.socket() as probe:
                    if probe.connect_ex(("127.0.0.1", port)) == 0:
                        break
                time.sleep(0.02)
            yield address
        finally:
            process.terminate()
