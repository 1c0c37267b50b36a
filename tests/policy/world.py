"""What the policy tests work on: images signed well and badly, and the real engine."""

import base64
import hashlib
import json
import os
import shutil
import socket
import subprocess
import sys
import tarfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = Path(__file__).resolve().parent / "stacks.py"
BUNDLE = "--new-bundle-format"
"""The flag with which cosign signs by a Sigstore bundle."""
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
SIGNATURES = "dev.cosignproject.cosign/sigs"


def run(*command: str, cwd: Path, **environment: str) -> str:
    """Run a program that must succeed and return what it printed."""
    result = subprocess.run(
        command, cwd=cwd, env={**os.environ, **environment}, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, f"{' '.join(command)}: {result.stderr}"
    return result.stdout.strip()


def free_port() -> int:
    """Return a TCP port that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def write_blob(layout: Path, content: bytes, kind: str) -> dict[str, Any]:
    """Write a blob into an OCI layout and return its descriptor."""
    digest = hashlib.sha256(content).hexdigest()
    (layout / "blobs" / "sha256").mkdir(parents=True, exist_ok=True)
    (layout / "blobs" / "sha256" / digest).write_bytes(content)
    return {"mediaType": kind, "digest": f"sha256:{digest}", "size": len(content)}


def write_index(layout: Path, entries: list[dict[str, Any]]) -> None:
    """Write the files by which a folder with blobs is an OCI layout."""
    (layout / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": entries}))
    (layout / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')


@dataclass
class Images:
    """A registry, key pairs and images in every state of being signed.

    Args:
        folder: holds the keys, such as `trusted.pub`, and the layouts.
        registry: its address.
        names: state → image, as a pod would name it.
    """

    folder: Path
    registry: str
    names: dict[str, str] = field(default_factory=dict)

    def make_keys(self, *names: str) -> None:
        """Make key pairs, without passphrases."""
        for name in names:
            prefix = f"--output-key-prefix={name}"
            run("cosign", "generate-key-pair", prefix, cwd=self.folder, COSIGN_PASSWORD="")

    def push(self, name: str) -> str:
        """Push an image of its own content as NAME:v1 and return its name by digest."""
        content = self.folder / f"{name}.txt"
        content.write_text(name, encoding="utf-8")
        with tarfile.open(self.folder / f"{name}.tar", "w") as layer:
            layer.add(content, arcname=content.name)
        image = f"{self.registry}/models/{name}:v1"
        run("crane", "append", "-f", f"{name}.tar", "-t", image, cwd=self.folder)
        return self.by_digest(image)

    def push_wasm(self, name: str) -> str:
        """Push an artifact that holds a wasm module (CNCF: "Wasm OCI Artifact Layout") as NAME:v1."""
        layout = self.folder / f"{name}.layout"
        config = json.dumps({"architecture": "wasm", "os": "wasip1", "layerDigests": []}).encode()
        manifest = {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": write_blob(layout, config, "application/vnd.wasm.config.v0+json"),
            "layers": [write_blob(layout, b"\0asm\1\0\0\0", "application/wasm")],
        }
        write_index(layout, [write_blob(layout, json.dumps(manifest).encode(), MANIFEST)])
        image = f"{self.registry}/models/{name}:v1"
        run("crane", "push", str(layout), image, cwd=self.folder)
        return self.by_digest(image)

    def by_digest(self, image: str) -> str:
        """Return a tagged image's name with the digest it has now."""
        return f"{image}@{run('crane', 'digest', image, cwd=self.folder)}"

    def sign(self, image: str, *flags: str, key: str = "trusted") -> None:
        """Sign an image with one of the keys, leaving no trace in a public log."""
        command = ["cosign", "sign", "-y", f"--key={key}.key", "--tlog-upload=false", *flags, image]
        run(*command, cwd=self.folder, COSIGN_PASSWORD="")

    def save(self, image: str, layout: str) -> str:
        """Save a signed image as a layout and return a name for it in a registry that does not exist."""
        run("cosign", "save", "--dir", layout, image, cwd=self.folder)
        return f"edge.invalid/models/{layout}@{image.split('@')[1]}"

    def save_bundles(self, image: str, layout: str) -> str:
        """Save an image's Sigstore bundles as save() does the image and its classic signature."""
        repository, digest = image.split(":v1@")
        listed = (
            f"{repository}:{digest.replace(':', '-')}"  # where registries without a referrers API keep them
        )
        run("crane", "pull", "--format=oci", listed, layout, cwd=self.folder)
        return f"edge.invalid/models/{layout}@{digest}"

    def sign_in_layout(self, layout: str, digest: str, key: str) -> dict[str, Any]:
        """Sign an image that is nowhere, by its digest; return the descriptor of the bundle's manifest."""
        statement = {
            "_type": "https://in-toto.io/Statement/v1",
            "subject": [{"digest": {"sha256": digest}}],
            "predicateType": "https://sigstore.dev/cosign/sign/v1",
        }
        (self.folder / "statement").write_text(json.dumps(statement))
        command = ["cosign", "attest-blob", "-y", f"--key={key}.key", "--tlog-upload=false", BUNDLE]
        command += ["--statement=statement", "--bundle=bundle"]
        run(*command, cwd=self.folder, COSIGN_PASSWORD="")
        kind, folder = "application/vnd.dev.sigstore.bundle.v0.3+json", self.folder / layout
        manifest = {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "artifactType": kind,
            "config": write_blob(folder, b"{}", "application/vnd.oci.empty.v1+json"),
            "layers": [write_blob(folder, (self.folder / "bundle").read_bytes(), kind)],
            "subject": {"mediaType": MANIFEST, "digest": f"sha256:{digest}", "size": 1},
        }
        return write_blob(folder, json.dumps(manifest).encode(), MANIFEST)

    def settings(self, **changes: Any) -> dict[str, Any]:
        """Return the pack's settings for these images, in Pulumi's form; changes are signed-images'."""
        signed: dict[str, Any] = {
            "keys": [
                {"file": str(self.folder / "trusted.pub")},
                {"file": str(self.folder / "expired.pub"), "notAfter": "2020-01-31"},
                {"file": str(self.folder / "revoked.pub"), "revoked": "a laptop was lost"},
            ],
            "layouts": [str(self.folder / name) for name in ("saved", "saved-bundle", "tampered")],
            "timeoutSeconds": 20,
        }
        registries = [self.registry, "127.0.0.1:1", "edge.invalid"]
        return {"image-registry": {"registries": registries}, "signed-images": {**signed, **changes}}


def tamper(layout: Path) -> None:
    """Change the signature in a layout, leaving every digest and size right."""
    index = json.loads((layout / "index.json").read_text(encoding="utf-8"))
    entry = next(e for e in index["manifests"] if e["annotations"]["kind"] == SIGNATURES)
    blobs = layout / "blobs" / "sha256"
    manifest = json.loads((blobs / entry["digest"].split(":")[1]).read_text(encoding="utf-8"))
    notes = manifest["layers"][0]["annotations"]
    signature = bytearray(base64.b64decode(notes["dev.cosignproject.cosign/signature"]))
    signature[-1] ^= 1
    notes["dev.cosignproject.cosign/signature"] = base64.b64encode(signature).decode()
    changed = json.dumps(manifest).encode()
    digest = hashlib.sha256(changed).hexdigest()
    (blobs / digest).write_bytes(changed)
    entry.update(digest=f"sha256:{digest}", size=len(changed))
    (layout / "index.json").write_text(json.dumps(index), encoding="utf-8")


@dataclass
class Engine:
    """The real engine on one of the test stacks.

    Args:
        folder: the copy of the stack that it runs.
        pack: the policy pack.
    """

    folder: Path
    pack: Path = ROOT / "policies"

    def run(self, verb: str, stack: str, images: Images, settings: dict[str, Any] | None) -> tuple[int, str]:
        """Run `pulumi VERB --policy-pack policies` on a test stack and return exit code and output."""
        program = self.folder / stack
        if not program.exists():
            program.mkdir()
            shutil.copy(PROGRAM, program / "__main__.py")
            runtime = {"name": "python", "options": {"virtualenv": str(Path(sys.prefix))}}
            (program / "Pulumi.yaml").write_text(json.dumps({"name": "policy-test", "runtime": runtime}))
            (program / "images.json").write_text(json.dumps(images.names))
        environment = {
            **os.environ,
            "PULUMI_BACKEND_URL": (self.folder / "state").as_uri(),
            "PULUMI_CONFIG_PASSPHRASE": "policy-test",
            "PULUMI_SKIP_UPDATE_CHECK": "true",
        }
        environment.pop("PULUMI_CONFIG_PASSPHRASE_FILE", None)
        (self.folder / "state").mkdir(exist_ok=True)
        command = [
            "pulumi",
            verb,
            "--stack",
            stack,
            "--non-interactive",
            "--color=never",
            "--policy-pack",
            str(self.pack),
        ]
        if verb == "up":
            command.append("--yes")
        if settings is not None:
            (program / "settings.json").write_text(json.dumps(settings))
            command += ["--policy-pack-config", str(program / "settings.json")]
        subprocess.run(
            ["pulumi", "stack", "select", "--create", stack],
            cwd=program,
            env=environment,
            check=True,
            capture_output=True,
        )
        result = subprocess.run(
            command, cwd=program, env=environment, capture_output=True, text=True, timeout=300, check=False
        )
        return result.returncode, result.stdout + result.stderr
