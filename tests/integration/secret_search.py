"""Where a site's secrets stand, and who may read that."""

from __future__ import annotations

import base64
import subprocess
from dataclasses import dataclass
from pathlib import Path

import yaml

from tests.integration.air_site import AirSite


@dataclass(frozen=True)
class Found:
    """A file that holds a secret.

    Args:
        file: where it lies, seen from here.
        path: where it lies on its machine.
        secrets: which secrets it holds.
        user: its owner.
        mode: its permissions.
    """

    file: Path
    path: str
    secrets: tuple[str, ...]
    user: int
    mode: int

    def __str__(self) -> str:
        """One line for people."""
        return f"{self.path} {self.mode:o} user {self.user}: {', '.join(self.secrets)}"


def needles(site: AirSite) -> dict[str, str]:
    """Texts that are nowhere but where a secret is, each by its secret's name.

    The join token is looked for by its halves: K3s writes it as `K10<sum of a certificate>::server:<token>`.
    Of keys it is the lines that the private number is in, as they stand in PEM, and again in base64 as a
    kubeconfig has them.
    """
    server = site.names[0]
    token = site.ssh(server, "cat /etc/rancher/k3s/token").strip()
    assert len(token) == 64
    assert site.ssh(server, "cat /var/lib/rancher/k3s/server/token").strip().endswith(f"::server:{token}")
    key = (site.folder / "hosts/id_ed25519").read_text().splitlines()
    shown = site.pulumi("stack", "output", "kubeconfig", "--show-secrets").stdout
    encoded = yaml.safe_load(shown)["users"][0]["user"]["client-key-data"]
    pem = base64.b64decode(encoded).decode().splitlines()
    assert "PRIVATE KEY" in key[0]
    assert "PRIVATE KEY" in pem[0]
    return {
        "join token, first half": token[:32],
        "join token, second half": token[32:],
        "SSH key": key[4],
        "kubeconfig's key": pem[1],
        "kubeconfig's key in base64": encoded[48:104],
        "stack's passphrase": (site.project / ".state/passphrase").read_text().strip(),
    }


def search(root: Path, folders: list[str], secret: dict[str, str], since: Path | None = None) -> list[Found]:
    """Files that hold any of the secrets.

    Args:
        root: the root of the machine whose files they are.
        folders: where to look, from the root; what is mounted there belongs to it.
        secret: what to look for, by name.
        since: files older than this one are left out, and so are those of more than 8 MiB.
    """
    newer = ["-newer", str(since), "-size", "-8M"] if since else []
    places = [str(root / folder.removeprefix("/")) for folder in folders]
    find = ["find", *places, "-type", "f", *newer, "-print0"]
    listed = subprocess.run(find, capture_output=True, check=False).stdout
    patterns = "\n".join(secret.values())
    grep = ["xargs", "-0", "-r", "grep", "-laF", "--regexp", patterns, "--"]
    output = subprocess.run(grep, input=listed, capture_output=True, check=False).stdout
    return sorted((_found(root, Path(line), secret) for line in output.decode().splitlines()), key=str)


def _found(root: Path, file: Path, secret: dict[str, str]) -> Found:
    content, status = file.read_bytes(), file.stat()
    held = tuple(name for name, text in secret.items() if text.encode() in content)
    path = "/" + str(file.relative_to(root))
    return Found(file, path, held, status.st_uid, status.st_mode & 0o777)
